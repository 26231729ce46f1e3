"""What each verb of the command line does; the heavy steps import their jobs when they are taken."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lora_lightning import recipe
from lora_lightning.errors import InputError, RecipeError
from lora_lightning.recipe import Recipe
from lora_lightning.run_verbs import runs_
from lora_lightning.runs.files import write_text
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.job import reserve
from lora_lightning.runs.reporter import Outcome
from lora_lightning.taking import Say, take
from lora_lightning.workspace import Workspace


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
    paths = [Path(source).expanduser() for source in sources]
    report = import_sources(workspace, name, paths, arguments.background)
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
        return take(verb, loaded, workspace, run, say)

    return do


def export(arguments: Namespace, workspace: Workspace, say: Say) -> Outcome:
    """Write a dataset for another tool."""
    from lora_lightning.datasets import exporting
    from lora_lightning.datasets.store import Dataset

    dataset = Dataset.open(workspace.dataset(arguments.words[0]))
    if arguments.hub:
        from lora_lightning.publish.dataset import push

        pushed = push(dataset, arguments.hub)
        say(f"{dataset.name} is at {pushed.url}")
        return Outcome({}, {"url": pushed.url, "commit": pushed.commit, "private": pushed.private})
    if not arguments.format or not arguments.output:
        raise InputError("export needs --format and --output", "Such as: export NAME --format seed --output folder")
    output = Path(arguments.output).expanduser().resolve()
    done = exporting.export(dataset, arguments.format, output)
    for note in done.notes:
        say(f"  note: {note}")
    say(f"{len(done.files)} files are in {output}, and read back as {arguments.format} reads them")
    report = {"pictures": done.pictures, "captions": done.captions, "notes": done.notes}
    return Outcome({"files": [str(path.resolve()) for path in done.files]}, report)


def check(arguments: Namespace, workspace: Workspace, say: Say) -> Outcome:
    """Report every problem of a recipe, its dataset and this machine."""
    source, *overrides = arguments.words
    found = recipe.inspect(recipe.read(source), overrides)
    report = _checked("train", found, workspace, source, say)
    say(f"{source} is ready to train")
    return Outcome(report=report)


def import_recipe(arguments: Namespace, workspace: Workspace, say: Say) -> Outcome:
    """Translate a recipe of another trainer, with what became of every setting."""
    from lora_lightning.foreign import opening

    source, *overrides = arguments.words
    found = opening.open_file(Path(source).expanduser(), overrides)
    output = Path(arguments.output or f"{found.recipe.name}.yaml").expanduser().resolve()
    if output.exists():
        raise InputError(f"{output} exists already", "Give another file with --output.")
    write_text(output, found.to_yaml())
    for title, lines in (
        ("translated", found.of("taken")),
        ("not translated", [*found.of("left"), *found.problems]),
    ):
        say("\n".join([f"{title}:", *(f"  {line}" for line in lines)]))
    say(f"{found.rate}\nlook at it: python -m lora_lightning check {output}")
    told = {kind: [row.as_dict() for row in found.of(kind)] for kind in ("taken", "left", "same")}
    problems = [vars(problem) for problem in found.problems]
    return Outcome({"recipe": str(output)}, {"tool": found.tool, "problems": problems, **told})


def doctor(_arguments: Namespace, workspace: Workspace, say: Say) -> Outcome:
    """Look at GPU, memory, disk, packages, token and model files, each with a fix."""
    from lora_lightning.doctor import examine

    findings = examine(workspace)
    for finding in findings:
        say(f"  {'ok  ' if finding.ok else 'look'} {finding.name}: {finding.detail}")
        if not finding.ok:
            say(f"       {finding.fix}")
    return Outcome(report={"findings": [vars(finding) for finding in findings]})


def demo(arguments: Namespace, workspace: Workspace, say: Say) -> Outcome:
    """Run the whole workflow on the embedded sample; the dashboard names the run that it has reserved."""
    from lora_lightning.demo.sample import demo_recipe, sample

    source = arguments.words[0] if arguments.words else ""
    run = _own_run(workspace, source) if source else None
    if source and run is None:
        raise InputError(f"demo takes no {source!r}", "`python -m lora_lightning demo` brings its own pictures.")
    values = recipe.load(run.recipe_path) if run else demo_recipe(sample(), workspace)
    return take("demo", values, workspace, run or reserve(workspace, "demo", values.name, values.to_yaml()), say)


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
    "import-recipe": Verb("FILE [section.field=value...]", "translate a recipe of another trainer", import_recipe),
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
    for line in (*report.estimates, *(f"warning: {problem}" for problem in report.warnings)):
        say(str(line))
    if report.blockers:
        error = RecipeError(report.blockers, source)
        error.report = report.as_dict()
        raise error
    return report.as_dict()


def _own_run(workspace: Workspace, source: str) -> RunFolder | None:
    """The run whose own, not yet started recipe this is: the dashboard reserves the folder, then starts the command."""
    path = Path(source).resolve()
    run = RunFolder(path.parent)
    if path.name != "recipe.yaml" or path.parent.parent != workspace.runs.resolve():
        return None
    return run if run.read_state().get("state") == "queued" else None
