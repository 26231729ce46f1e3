"""`demo`: the whole workflow on the embedded sample, offline and on the CPU, with models that truly learn.

flux-mini, captioner-mini and encoder-mini are small pretrained models of the real architectures; see README.md here.
"""

import logging
import time
from pathlib import Path

from lora_lightning import steps
from lora_lightning.datasets import exporting
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.demo.sample import sample
from lora_lightning.recipe import Recipe
from lora_lightning.runs.folder import RESUMABLE, RunFolder
from lora_lightning.runs.job import perform, reserve, run_name
from lora_lightning.runs.reporter import Outcome, Reporter
from lora_lightning.workspace import Workspace

log = logging.getLogger("lora_lightning")

PARTS = ("caption", "train", "evaluate", "generate")


def take(_verb: str, recipe: Recipe, workspace: Workspace, run: RunFolder) -> Outcome:
    """Run the demo in this process; each part is a run of its own, which takes the device for itself."""
    return perform(workspace, run, lambda reporter: work(recipe, workspace, reporter), needs_device=False)


def work(recipe: Recipe, workspace: Workspace, reporter: Reporter) -> Outcome:
    """Import, caption, train, evaluate, generate and export; a part that is done already is not done again."""
    seconds: dict[str, float] = {}
    reporter.phase("import")
    started = time.monotonic()
    reports: dict[str, object] = {"import": import_sample(workspace, recipe.dataset.name)}
    seconds["import"] = round(time.monotonic() - started, 1)
    made: dict[str, str | list[str]] = {"dataset": str(workspace.dataset(recipe.dataset.name))}
    for part in PARTS:
        reporter.check_stop()
        started = time.monotonic()
        outcome = _part(part, recipe, workspace, reporter)
        seconds[part] = round(time.monotonic() - started, 1)
        made |= outcome.made if part != "generate" else {"generated": outcome.made["images"]}
        reports[part] = outcome.report
    reporter.phase("export")
    made["run"] = str(workspace.run(recipe.name))
    made["files"] = _export(workspace, recipe)
    return Outcome(made, reports | {"seconds": seconds, "summary": "\n".join(_summary(made, reports, seconds))})


def import_sample(workspace: Workspace, name: str) -> dict[str, object]:
    """Bring the sample set in as any ZIP comes in; a dataset of its name that is there already stays as it is."""
    if name in workspace.dataset_names():
        log.info("dataset %r is there already", name)
        return {}
    report = import_sources(workspace, name, [sample(name).archive])
    log.info("imported %d pictures into dataset %r", len(report.accepted), name)
    return report.as_dict()


def _part(verb: str, recipe: Recipe, workspace: Workspace, reporter: Reporter) -> Outcome:
    """One step: taken anew, gone on with, or read from its result when an earlier start of this demo finished it."""
    run = RunFolder(workspace.run(run_name(verb, recipe.name)))
    state = run.status().state if run.recipe_path.is_file() else ""
    if state == "completed":
        result = run.result()
        return Outcome(result["made"], result["report"])
    if state not in RESUMABLE:
        run = reserve(workspace, verb, recipe.name, recipe.to_yaml())
    return steps.take(verb, recipe, workspace, run, above=reporter)


def _export(workspace: Workspace, recipe: Recipe) -> list[str]:
    dataset = Dataset.open(workspace.dataset(recipe.dataset.name))
    done = exporting.export(dataset, "seed", workspace.home / "export" / recipe.name)
    return [str(path.resolve()) for path in done.files]


def _summary(made: dict[str, str | list[str]], reports: dict[str, object], seconds: dict[str, float]) -> list[str]:
    lora = Path(str(made["lora"]))
    trained, judged = reports["train"], reports["evaluate"]
    assert isinstance(trained, dict)
    assert isinstance(judged, dict)
    lines = [f"LoRA: {lora} ({lora.stat().st_size / 2**20:.2f} MiB), {trained['steps_per_second']:.1f} steps/s"]
    lines += [f"picture: {path}" for path in made["generated"]]
    for row in judged["measures"]:
        value = "not measurable" if row["value"] is None else f"{row['value']:.2f}"
        lines.append(f"{row['name'].replace('_', ' ')}: {value} ({row['meaning']})")
    shares = ", ".join(f"{part} {spent:.0f} s" for part, spent in seconds.items())
    return [
        *lines,
        f"time: {shares}",
        f"contact sheet: {made['sheet']}",
        "Next: `make run` opens the dashboard on the same workspace.",
    ]
