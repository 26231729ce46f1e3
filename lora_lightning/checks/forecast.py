"""What a training will take: room on the disk, RAM and the GPU's memory, beside what this machine has."""

import shutil
from collections.abc import Sequence

import psutil

from lora_lightning.checks import sizes
from lora_lightning.checks.machine import GIB, home_of
from lora_lightning.checks.model import GIGABYTES
from lora_lightning.checks.planned import Planned, planned
from lora_lightning.checks.report import Estimate, Report
from lora_lightning.datasets.store import Picture
from lora_lightning.models.config import PUBLISHED
from lora_lightning.models.planner import card_of, choose, smallest_card
from lora_lightning.models.reasons import reasons
from lora_lightning.recipe import Recipe
from lora_lightning.train.plan import relief
from lora_lightning.workspace import Workspace

PROCESS_GIB = 3.0
"""Python, PyTorch and the rest, before a weight is loaded."""
LEAST_FOR_A_GPU = 1_000_000_000
"""Weights; a smaller model is trained on a CPU as well."""
UNKNOWN = "the model's configuration is not on this machine"


def forecast(recipe: Recipe, pictures: Sequence[Picture], workspace: Workspace, report: Report) -> None:
    """Add the estimates, and a warning where this machine has less."""
    shapes = sizes.shapes_of(recipe.model.base)
    _disk(recipe, pictures, shapes, workspace, report)
    found = planned(recipe, pictures)
    _memory(recipe, found.choice.need.host / GIB if found and found.choice.need else 0.0, report)
    _vram(recipe, found, report)


def _disk(
    recipe: Recipe, pictures: Sequence[Picture], shapes: sizes.Shapes | None, workspace: Workspace, report: Report
) -> None:
    if shapes is None:
        report.estimates.append(Estimate("disk", "unknown", UNKNOWN))
        return
    cache = sizes.cache_bytes(recipe, pictures, shapes)
    weights = sizes.learned(recipe, shapes)
    own = sizes.run_bytes(recipe, weights) if weights is not None else 0
    needed, free = (cache + own) / GIB, shutil.disk_usage(home_of(workspace)).free / GIB
    run = f"{_gib(own / GIB)} of checkpoints, LoRA and samples" if own else "the run's own files not counted"
    told = f"{_gib(cache / GIB)} of cache, {run}; {_gib(free)} are free"
    report.estimates.append(Estimate("disk", _gib(needed), told, needed, "GiB", free))
    if needed > free:
        hint = "free some, or lower dataset.resolutions, dataset.crops or dataset.shuffle_tags"
        report.warn("disk", f"the run takes about {_gib(needed)}, and {_gib(free)} are free", hint)


def _memory(recipe: Recipe, streamed: float, report: Report) -> None:
    """RAM holds one part after the other: text encoders, then transformer and VAE; and blocks that wait there."""
    parts = sizes.weight_bytes(recipe.model.base, tuple(recipe.model.files.model_dump().values()))
    total = psutil.virtual_memory().total / GIB
    if not parts and recipe.model.base not in PUBLISHED:
        report.estimates.append(Estimate("RAM", "unknown", UNKNOWN))
        return
    whole = sum(parts.values()) / GIB if parts else GIGABYTES.get(recipe.model.base, 34) * 1e9 / GIB
    largest = max(parts.values()) / GIB if parts else whole * 0.7
    needed = PROCESS_GIB + largest + streamed
    waiting = f", {_gib(streamed)} of blocks that wait for the GPU" if streamed else ""
    told = f"{PROCESS_GIB:g} GiB and the largest part of {_gib(whole)}{waiting}; the machine has {_gib(total)}"
    report.estimates.append(Estimate("RAM", _gib(needed), told, needed, "GiB", total))
    if needed > total:
        hint = "add RAM or swap, or use a smaller base model: the system would end the process without a word"
        report.warn("RAM", f"loading takes about {_gib(needed)}, and the machine has {_gib(total)}", hint)


def _vram(recipe: Recipe, found: Planned | None, report: Report) -> None:
    """What the plan needs of this card; without one, of the smallest that would do."""
    if found is None:
        report.estimates.append(Estimate("VRAM", "unknown", UNKNOWN))
        return
    if found.card is None or found.choice.need is None:
        size = smallest_card(found.load, found.asked)
        if size and found.load.shape.weights > LEAST_FOR_A_GPU:
            least = choose(found.load, found.asked, card_of(size))
            assert least.need
            why = "; ".join(reasons(found.load, found.asked, card_of(size), least))
            told = f"no GPU here; a card of {size} GB would run it: {why}"
            report.estimates.append(Estimate("VRAM", _gib(least.need.total / GIB), told, least.need.total / GIB, "GiB"))
        return
    needed, usable = found.choice.need.total / GIB, found.card.usable / GIB
    report.estimates.append(Estimate("VRAM", _gib(needed), "; ".join(found.reasons), needed, "GiB", usable))
    if not found.choice.fits:
        helps = relief(recipe.train, recipe.dataset.resolutions, found.choice.setting)
        told = f"the least that this can be trained with is {_gib(needed)}, and the card has {_gib(usable)} to use"
        report.block("VRAM", told, f"set {helps[0]}, or use a larger card")


def _gib(amount: float) -> str:
    return f"{amount:.1f} GiB" if amount >= 1 else f"{amount * 1024:.0f} MiB"
