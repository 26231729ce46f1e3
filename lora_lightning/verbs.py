"""What each verb of the command line does; the heavy steps import their jobs when they are taken."""

import shutil
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lora_lightning import plugins, recipe, steps
from lora_lightning.errors import InputError, RecipeError
from lora_lightning.recipe import Recipe
from lora_lightning.runs import launch, queue
from lora_lightning.runs.folder import RunFolder, Status, runs
from lora_lightning.runs.job import reserve
from lora_lightning.runs.reporter import Outcome, duration
from lora_lightning.workspace import Workspace

Say = Callable[[str], None]


@dataclass(frozen=True)
class Verb:
    """One verb: its words after the name, one line of help, and the function behind it."""

    words: str
    help: str
    do: Callable[[Namespace, Workspace, Say], Outcome]
    minimum_words: int = 1


def import_(arguments: Namespace, workspace: Workspace, say: Say) -> Outcome:
    """Import pictures and captions into a dataset."""
    from lora_lightning.datasets.importing import import_sources

    name, *sources = arguments.words
    report = import_sources(workspace, name, [Path(source).expanduser() for source in sources])
    for kind, notes in (("changed", report.changed), ("rejected", report.rejected)):
        for note in notes:
            say(f"  {kind}: {note.file}: {note.reason}")
    say(f"{len(report.accepted)} pictures and {report.captions} captions are in {workspace.dataset(name)}")
    return Outcome({"dataset": str(workspace.dataset(name))}, report.as_dict())


def step(verb: str) -> Callable[[Namespace, Workspace, Say], Outcome]:
    """The function of a verb that is one long step of a recipe."""

    def do(arguments: Namespace, workspace: Workspace, say: Say) -> Outcome:
        source, *overrides = arguments.words
        loaded = recipe.load(source, overrides)
        if getattr(arguments, "rehearse", False):
            loaded = recipe.rehearsal(loaded)
            say("Rehearsal on flux-mini: it proves the configuration and the data, not the quality.")
        run = _own_run(workspace, source) or _new_run(verb, loaded, workspace, source, say)
        return _take(verb, loaded, workspace, run, say)

    return do


def export(arguments: Namespace, workspace: Workspace, say: Say) -> Outcome:
    """Write a dataset for another tool."""
    from lora_lightning.datasets.store import Dataset

    if not arguments.format or not arguments.output:
        raise InputError("export needs --format and --output", "Such as: export NAME --format seed --output folder")
    exporter = plugins.load("datasets/formats", arguments.format)
    dataset = Dataset.open(workspace.dataset(arguments.words[0]))
    files = exporter.export(dataset, Path(arguments.output).expanduser().resolve())
    say(f"{len(files)} files are in {Path(arguments.output).resolve()}")
    return Outcome({"files": [str(path.resolve()) for path in files]}, {"pictures": len(dataset.pictures())})


def check(arguments: Namespace, workspace: Workspace, say: Say) -> Outcome:
    """Report every problem of a recipe, its dataset and this machine."""
    source, *overrides = arguments.words
    found = recipe.inspect(recipe.read(source), overrides)
    report = _checked("train", found, workspace, source, say)
    say(f"{source} is ready to train")
    return Outcome(report=report)


def runs_(arguments: Namespace, workspace: Workspace, say: Say) -> Outcome:
    """List, show, stop, resume, queue, clone or delete runs."""
    action, *words = arguments.words or ["list"]
    actions = {"list": _list, "show": _show, "stop": _stop, "resume": _resume, "queue": _queue}
    actions |= {"clone": _clone, "delete": _delete}
    if action not in actions:
        raise InputError(f"there is no `runs {action}`", f"Choose one of: {', '.join(actions)}.")
    if not words and action not in ("list", "queue"):
        raise InputError(f"`runs {action}` needs the name of a run", "`runs list` shows them.")
    return actions[action](words, workspace, say)


def doctor(_arguments: Namespace, workspace: Workspace, say: Say) -> Outcome:
    """Look at GPU, memory, disk, packages, token and model files, each with a fix."""
    from lora_lightning.doctor import examine

    findings = examine(workspace)
    for finding in findings:
        say(f"  {'ok  ' if finding.ok else 'look'} {finding.name}: {finding.detail}")
        if not finding.ok:
            say(f"       {finding.fix}")
    return Outcome(report={"findings": [vars(finding) for finding in findings]})


def demo(_arguments: Namespace, workspace: Workspace, say: Say) -> Outcome:
    """Run the whole workflow on the embedded sample."""
    from lora_lightning.demo.job import run

    return run(workspace, say)


VERBS = {
    "demo": Verb("", "the whole workflow on the embedded sample, offline, on the CPU", demo, 0),
    "import": Verb("NAME SOURCE...", "bring a ZIP, a folder, pictures or captions into dataset NAME", import_, 2),
    "caption": Verb("RECIPE [section.field=value...]", "caption a dataset", step("caption")),
    "train": Verb("RECIPE [section.field=value...]", "cache, train and save a LoRA", step("train")),
    "evaluate": Verb("RECIPE [section.field=value...]", "measure what a LoRA learnt, with a sheet", step("evaluate")),
    "generate": Verb("RECIPE [section.field=value...]", "draw pictures, with or without LoRAs", step("generate")),
    "publish": Verb("RECIPE [section.field=value...]", "push a finished LoRA to the Hugging Face Hub", step("publish")),
    "export": Verb("NAME --format F --output PATH", "write a dataset for another tool", export),
    "check": Verb("RECIPE [section.field=value...]", "list every problem of recipe, data and machine", check),
    "runs": Verb("[list|show|stop|resume|queue|clone|delete] [RUN]", "see and steer runs", runs_, 0),
    "doctor": Verb("", "look at this machine, with a fix for each problem", doctor, 0),
}


def _new_run(verb: str, loaded: Recipe, workspace: Workspace, source: str, say: Say) -> RunFolder:
    """A run folder for a recipe that nothing blocks, so that a mistake takes no name."""
    _checked(verb, recipe.Inspection(loaded, []), workspace, source, say)
    return reserve(workspace, verb, loaded.name, loaded.to_yaml())


def _checked(verb: str, found: recipe.Inspection, workspace: Workspace, source: str, say: Say) -> dict[str, object]:
    from lora_lightning.check import check

    report = check(found.recipe, workspace, verb)
    wrong = {problem.where for problem in found.problems}
    report.blockers = found.problems + [problem for problem in report.blockers if problem.where not in wrong]
    for problem in report.warnings:
        say(f"warning: {problem}")
    if report.blockers:
        error = RecipeError(report.blockers, source)
        error.report = report.as_dict()
        raise error
    return report.as_dict()


def _take(verb: str, loaded: Recipe, workspace: Workspace, run: RunFolder, say: Say) -> Outcome:
    outcome = steps.take(verb, loaded, workspace, run)
    made = {"run": str(run.path)} | outcome.made
    for name, paths in made.items():
        for path in paths if isinstance(paths, list) else [paths]:
            say(f"{name}: {path}")
    for name, value in outcome.report.items():
        if isinstance(value, int | float | str):
            say(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    return Outcome(made, outcome.report)


def _own_run(workspace: Workspace, source: str) -> RunFolder | None:
    """The run whose own, not yet started recipe this is: the dashboard reserves the folder, then starts the command."""
    path = Path(source).resolve()
    run = RunFolder(path.parent)
    if path.name != "recipe.yaml" or path.parent.parent != workspace.runs.resolve():
        return None
    return run if run.read_state().get("state") == "queued" else None


def _describe(status: Status) -> str:
    progress = f" {status.phase} {status.done}/{status.total}" if status.live and status.total else ""
    left = f", about {duration(status.eta_seconds)} left" if status.eta_seconds is not None else ""
    return f"{status.name}: {status.state}{progress}{left}" + (f" ({status.message})" if status.message else "")


def _list(_words: list[str], workspace: Workspace, say: Say) -> Outcome:
    found = [run.status() for run in runs(workspace)]
    for status in found:
        say(_describe(status))
    if not found:
        say(f"no runs in {workspace.runs}; `python -m lora_lightning train RECIPE` makes the first")
    return Outcome(report={"runs": [vars(status) for status in found]})


def _show(words: list[str], workspace: Workspace, say: Say) -> Outcome:
    run = RunFolder.open(workspace, words[0])
    say(_describe(run.status()))
    say(run.log_tail(4096))
    return Outcome({"run": str(run.path)}, vars(run.status()) | {"result": run.result()})


def _stop(words: list[str], workspace: Workspace, say: Say) -> Outcome:
    run = RunFolder.open(workspace, words[0])
    if not run.status().live:
        raise InputError(f"run {run.name!r} is {run.status().state}", "Only a run that works or waits can be stopped.")
    launch.stop(run)
    deadline = time.monotonic() + 300
    while run.status().live and time.monotonic() < deadline:
        time.sleep(0.2)
    say(_describe(run.status()))
    return Outcome({"run": str(run.path)}, {"state": run.status().state})


def _resume(words: list[str], workspace: Workspace, say: Say) -> Outcome:
    run = RunFolder.open(workspace, words[0])
    launch.check_resumable(run)
    return _take(run.status().verb, recipe.load(run.recipe_path), workspace, run, say)


def _queue(words: list[str], workspace: Workspace, say: Say) -> Outcome:
    if words:
        queue.move_to_front(workspace, words[0])
    line = queue.waiting(workspace)
    for status in line:
        say(_describe(status))
    if not line:
        say("nothing waits")
    return Outcome(report={"queue": [status.name for status in line]})


def _clone(words: list[str], workspace: Workspace, say: Say) -> Outcome:
    name, *overrides = words
    run = RunFolder.open(workspace, name)
    values = recipe.read(run.recipe_path)
    copy = recipe.parse({**values, "name": launch.clone_name(workspace, values["name"])}, overrides)
    verb = run.status().verb
    return _take(verb, copy, workspace, reserve(workspace, verb, copy.name, copy.to_yaml()), say)


def _delete(words: list[str], workspace: Workspace, say: Say) -> Outcome:
    trash = launch.delete(workspace, RunFolder.open(workspace, words[0]))
    say(f"moved to {trash}; {shutil.disk_usage(workspace.home).free >> 30} GiB are free")
    return Outcome({"files": [trash]}, {})
