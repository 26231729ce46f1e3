"""`demo`: the whole workflow on the embedded sample, offline and on the CPU, with models that truly learn.

flux-mini, captioner-mini and encoder-mini are small pretrained models of the real architectures; see README.md here.
"""

import time
from collections.abc import Callable
from pathlib import Path

from lora_lightning import plugins, recipe, steps
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.demo.sample import Sample, sample
from lora_lightning.recipe import Recipe
from lora_lightning.runs.job import reserve
from lora_lightning.runs.reporter import Outcome, duration
from lora_lightning.workspace import Workspace

Say = Callable[[str], None]

SHOWN = 5
"""Held-out objects on the contact sheet."""


def run(workspace: Workspace, say: Say) -> Outcome:
    """Import, caption, train, evaluate, generate and export; says what it makes and how long each part took."""
    chosen = sample()
    dataset = chosen.name
    started = time.monotonic()
    report = import_sources(workspace, dataset, [chosen.archive])
    say(f"imported {len(report.accepted)} pictures into dataset {dataset!r} ({duration(time.monotonic() - started)})")
    values = demo_recipe(chosen, free_name(workspace, "inkmoji"))
    made: dict[str, str | list[str]] = {"dataset": str(workspace.dataset(dataset))}
    reports: dict[str, object] = {"import": report.as_dict()}
    seconds: dict[str, float] = {}
    for verb in ("caption", "train", "evaluate", "generate"):
        say(f"{verb} ...")
        part = time.monotonic()
        taken = reserve(workspace, verb, values.name, values.to_yaml())
        outcome = steps.take(verb, values, workspace, taken)
        seconds[verb] = round(time.monotonic() - part, 1)
        made |= outcome.made if verb in ("train", "evaluate") else _pictures(verb, outcome)
        reports[verb] = outcome.report
    made["run"] = str(workspace.run(values.name))
    exported = plugins.load("datasets/formats", "seed").export(
        Dataset.open(workspace.dataset(dataset)), workspace.home / "export" / values.name
    )
    made["files"] = [str(path.resolve()) for path in exported]
    reports["seconds"] = seconds
    _summarise(made, reports, seconds, say)
    return Outcome(made, reports)


def demo_recipe(chosen: Sample, name: str) -> Recipe:
    """The recipe of the demo: `rehearsal` on a sample set, judged by objects that it does not hold."""
    shown = chosen.held_out[:SHOWN]
    prompts = [held_out.prompt for held_out in shown]
    return recipe.load(
        "rehearsal",
        [
            f"name={name}",
            f"trigger={chosen.trigger}",
            f"dataset.name={chosen.name}",
            f"sample.prompts={[f'{chosen.trigger}, {prompts[0]}']}",
            f"evaluate.prompts={prompts}",
            f"evaluate.references={[str(held_out.truth) for held_out in shown]}",
            f"generate.prompts={[f'{chosen.trigger}, {prompt} <lora:{name}:1>' for prompt in prompts[:2]]}",
        ],
    )


def free_name(workspace: Workspace, base: str) -> str:
    """`base`, or `base-2`, `base-3`, ... : the demo numbers itself."""
    number, name = 1, base
    while workspace.run(name).exists() or (workspace.output / name).exists():
        number += 1
        name = f"{base}-{number}"
    return name


def _pictures(verb: str, outcome: Outcome) -> dict[str, str | list[str]]:
    """The generated pictures, which come beside those of training."""
    return {"generated": outcome.made["images"]} if verb == "generate" else {}


def _summarise(
    made: dict[str, str | list[str]], reports: dict[str, object], seconds: dict[str, float], say: Say
) -> None:
    lora = Path(str(made["lora"]))
    trained, judged = reports["train"], reports["evaluate"]
    assert isinstance(trained, dict)
    assert isinstance(judged, dict)
    say(f"LoRA: {lora} ({lora.stat().st_size / 2**20:.2f} MiB), {trained['steps_per_second']:.1f} steps/s")
    for path in made["generated"]:
        say(f"picture: {path}")
    for row in judged["measures"]:
        value = "not measurable" if row["value"] is None else f"{row['value']:.2f}"
        say(f"{row['name'].replace('_', ' ')}: {value} ({row['meaning']})")
    shares = ", ".join(f"{verb} {part:.0f} s" for verb, part in seconds.items())
    say(f"time: {shares}")
    say(f"contact sheet: {made['sheet']}")
    say("Next: `make run` opens the dashboard on the same workspace.")
