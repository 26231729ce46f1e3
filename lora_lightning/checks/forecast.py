"""What a training will take: room on the disk, RAM and the GPU's memory, beside what this machine has."""

import shutil
from collections.abc import Sequence

import psutil

from lora_lightning.checks import sizes
from lora_lightning.checks.machine import GIB, home_of
from lora_lightning.checks.model import GIGABYTES
from lora_lightning.checks.report import Estimate, Report
from lora_lightning.datasets.store import Picture
from lora_lightning.models.config import PUBLISHED
from lora_lightning.recipe import Recipe
from lora_lightning.workspace import Workspace

PROCESS_GIB = 3.0
"""Python, PyTorch and the rest, before a weight is loaded."""
UNKNOWN = "the model's configuration is not on this machine"


def forecast(recipe: Recipe, pictures: Sequence[Picture], workspace: Workspace, report: Report) -> None:
    """Add the estimates, and a warning where this machine has less."""
    shapes = sizes.shapes_of(recipe.model.base)
    _disk(recipe, pictures, shapes, workspace, report)
    _memory(recipe, report)


def _disk(
    recipe: Recipe, pictures: Sequence[Picture], shapes: sizes.Shapes | None, workspace: Workspace, report: Report
) -> None:
    if shapes is None:
        report.estimates.append(Estimate("disk", "unknown", UNKNOWN))
        return
    cache = sizes.cache_bytes(recipe, pictures, shapes)
    weights = sizes.adapter_weights(recipe, shapes)
    own = sizes.run_bytes(recipe, weights) if weights is not None else 0
    needed, free = (cache + own) / GIB, shutil.disk_usage(home_of(workspace)).free / GIB
    run = f"{_gib(own / GIB)} of checkpoints, LoRA and samples" if own else "the run's own files not counted"
    told = f"{_gib(cache / GIB)} of cache, {run}; {_gib(free)} are free"
    report.estimates.append(Estimate("disk", _gib(needed), told, needed, "GiB"))
    if needed > free:
        hint = "free some, or lower dataset.resolutions, dataset.crops or dataset.shuffle_tags"
        report.warn("disk", f"the run takes about {_gib(needed)}, and {_gib(free)} are free", hint)


def _memory(recipe: Recipe, report: Report) -> None:
    """RAM holds one part after the other: the text encoders, then transformer and VAE."""
    parts = sizes.weight_bytes(recipe.model.base, tuple(recipe.model.files.model_dump().values()))
    total = psutil.virtual_memory().total / GIB
    if not parts and recipe.model.base not in PUBLISHED:
        report.estimates.append(Estimate("RAM", "unknown", UNKNOWN))
        return
    whole = sum(parts.values()) / GIB if parts else GIGABYTES.get(recipe.model.base, 34) * 1e9 / GIB
    largest = max(parts.values()) / GIB if parts else whole * 0.7
    needed = PROCESS_GIB + largest
    told = f"{PROCESS_GIB:g} GiB and the largest part of {_gib(whole)}; the machine has {_gib(total)}"
    report.estimates.append(Estimate("RAM", _gib(needed), told, needed, "GiB"))
    if needed > total:
        hint = "add RAM or swap, or use a smaller base model: the system would end the process without a word"
        report.warn("RAM", f"loading takes about {_gib(needed)}, and the machine has {_gib(total)}", hint)


def _gib(amount: float) -> str:
    return f"{amount:.1f} GiB" if amount >= 1 else f"{amount * 1024:.0f} MiB"
