"""The long steps by their verb: which job does the work, and what frames it.

Each job imports torch and its friends, so it is imported only when its step is taken.
"""

from collections.abc import Callable
from importlib import import_module

from lora_lightning.recipe import Recipe
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.job import perform
from lora_lightning.runs.reporter import Outcome, Reporter
from lora_lightning.workspace import Workspace

Job = Callable[[Recipe, Workspace, Reporter], Outcome]

STEPS = ("caption", "train", "evaluate", "generate", "publish")
ON_DEVICE = ("caption", "train", "evaluate", "generate")


def take(verb: str, recipe: Recipe, workspace: Workspace, run: RunFolder, above: Reporter | None = None) -> Outcome:
    """Take one step of the workflow in this process, as the run says; `above` reports for what it is a part of.

    Raises:
        LoraLightningError: whatever ended it, recorded in the run.
    """
    return perform(
        workspace,
        run,
        lambda reporter: _work(verb, recipe, workspace, reporter),
        needs_device=_needs_device(verb, recipe),
        devices={"train": recipe.train.devices, "caption": recipe.caption.devices}.get(verb, 1),
        above=above,
    )


def _needs_device(verb: str, recipe: Recipe) -> bool:
    """Whether a step has to wait for a device; a captioner behind an endpoint works elsewhere."""
    elsewhere = verb == "caption" and recipe.caption.endpoint and not recipe.caption.tagger
    return verb in ON_DEVICE and not elsewhere


def job(verb: str) -> Job:
    """What does the work of a step."""
    if verb in ON_DEVICE:
        import_module("lora_lightning.models.quiet").hush()
    run: Job = import_module(f"lora_lightning.{verb}.job").run
    return run


def _work(verb: str, recipe: Recipe, workspace: Workspace, reporter: Reporter) -> Outcome:
    outcome = job(verb)(recipe, workspace, reporter)
    if verb == "train":
        import_module("lora_lightning.publish.card").write_card(recipe, workspace, reporter.run, outcome)
    return outcome
