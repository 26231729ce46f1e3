"""Taking one verb's work in this process, and saying what it made."""

from collections.abc import Callable

from lora_lightning import steps
from lora_lightning.recipe import Recipe
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.reporter import Outcome
from lora_lightning.workspace import Workspace

Say = Callable[[str], None]


def take(verb: str, loaded: Recipe, workspace: Workspace, run: RunFolder, say: Say) -> Outcome:
    """Do the work of a run, then say what it made and measured."""
    outcome = _taker(verb)(verb, loaded, workspace, run)
    made = {"run": str(run.path)} | outcome.made
    if verb == "demo":
        say(str(outcome.report["summary"]))
        return Outcome(made, outcome.report)
    for name, paths in made.items():
        for path in paths if isinstance(paths, list) else [paths]:
            say(f"{name}: {path}")
    for name, value in outcome.report.items():
        if isinstance(value, int | float | str):
            say(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    return Outcome(made, outcome.report)


def _taker(verb: str) -> Callable[[str, Recipe, Workspace, RunFolder], Outcome]:
    if verb != "demo":
        return steps.take
    from lora_lightning.demo.job import take

    return take
