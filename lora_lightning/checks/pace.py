"""How long a training may take: as an earlier run of its shape took, else as measured on such a card, else unknown."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice

import yaml

from lora_lightning.checks.machine import processes
from lora_lightning.checks.model import pipeline_of
from lora_lightning.checks.planned import planned
from lora_lightning.checks.report import Estimate
from lora_lightning.datasets.store import Picture
from lora_lightning.errors import InputError
from lora_lightning.models.config import PUBLISHED
from lora_lightning.recipe import Recipe, inspect
from lora_lightning.runs.folder import runs
from lora_lightning.runs.gpu import gpus
from lora_lightning.runs.reporter import duration
from lora_lightning.workspace import Workspace

MOST_COMPARED = 20
"""Finished runs that are looked at, the newest first."""
DEPENDS_ON = {
    "model": {"base", "files", "low_vram"},
    "lora": {"kind", "rank", "ranks", "targets", "modules"},
    "dataset": {"resolutions", "enlarge"},
    "train": {
        "batch_size",
        "accumulate",
        "precision",
        "quantize",
        "gradient_checkpointing",
        "stream",
        "preservation",
        "fast",
        "devices",
        "num_nodes",
    },
}
"""Fields that the seconds of a step depend on."""

SIDES = (512, 768, 1024)
MEASURED = {
    ("H100", "fast"): (0.1161, 0.2085, 0.3705),
    ("H100", "plain"): (0.5115, 0.5619, 0.6868),
}
"""Seconds of a step at these sides: FLUX.1-dev in bf16, all linears at rank 16, one picture, nothing recomputed.
Source: benchmarks/results/gpu_train-2026-11-23-memory.json."""


def time_of(recipe: Recipe, workspace: Workspace, pictures: Sequence[Picture] = ()) -> Estimate:
    """The steps alone: without caching, loading, samples and validation."""
    steps = recipe.train.plan.steps
    timed = ((run, run.result().get("report", {}).get("steps_per_second")) for run in runs(workspace))
    for run, speed in islice(((run, speed) for run, speed in timed if speed), MOST_COMPARED):
        if _shape_in(run.recipe_path.read_text(encoding="utf-8")) == _shape(recipe):
            told = f"{steps:,} steps at {speed:.3g} a second, as {run.name} took on this machine; samples come on top"
            return Estimate("time", duration(steps / speed), told, steps / speed, "seconds")
    seconds = _measured(recipe, pictures)
    if seconds:
        told = f"{steps:,} steps, as measured on such a card; a run here would tell better"
        return Estimate("time", duration(seconds), told, seconds, "seconds")
    return Estimate("time", "unknown", "no run of this shape has finished here; a few steps of it would tell")


def _measured(recipe: Recipe, pictures: Sequence[Picture]) -> float:
    """From the table, for what it was measured with; 0 for anything else. Every resolution comes equally often."""
    train, lora, cards, found = recipe.train, recipe.lora, gpus(), planned(recipe, pictures)
    setting = found.choice.setting if found else None
    alike = (
        pipeline_of(recipe.model.base) == "FluxPipeline"
        and recipe.model.base in PUBLISHED
        and setting is not None
        and (setting.quantize, setting.spared, setting.graph) == ("none", 0, setting.fast)
        and (train.precision, train.batch_size) == ("bf16-mixed", 1)
        and (lora.kind, lora.targets, lora.modules) == ("lora", "all", "")
        and not train.preservation
        and processes(recipe) == 1
        and set(recipe.dataset.resolutions) <= set(SIDES)
    )
    way = "fast" if setting and setting.fast else "plain"
    rows = [MEASURED[name, kind] for name, kind in MEASURED if cards and name in cards[0].name and kind == way]
    if not alike or not rows:
        return 0.0
    chosen = [rows[0][SIDES.index(side)] for side in recipe.dataset.resolutions]
    return train.plan.steps * train.accumulate * sum(chosen) / len(chosen)


def _shape(recipe: Recipe) -> str:
    return str(recipe.model_dump(mode="json", include=DEPENDS_ON))


@lru_cache(256)
def _shape_in(text: str) -> str:
    """Of a recipe file; remembered, since the Train page asks again at every click."""
    try:
        return _shape(inspect(yaml.safe_load(text)).recipe)
    except (InputError, yaml.YAMLError):
        return ""
