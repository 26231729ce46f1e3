"""The machine: a disk that is full or cannot be written, a GPU that is absent, small or old."""

import os
import shutil
from pathlib import Path

from lora_lightning.checks.model import stored_as
from lora_lightning.checks.report import Report
from lora_lightning.models import config as models
from lora_lightning.recipe import Recipe
from lora_lightning.runs.gpu import gpus
from lora_lightning.workspace import Workspace

GIB = 2**30
BF16_SINCE, FP8_SINCE = (8, 0), (8, 9)
"""Compute capability of Ampere, which computes in bf16, and of Ada, which does in fp8."""


def home_of(workspace: Workspace) -> Path:
    """The workspace, or the folder that it will be made in."""
    return next(folder for folder in (workspace.home, *workspace.home.parents) if folder.exists())


def check_disk(workspace: Workspace, report: Report) -> None:
    """A workspace that cannot be written, or too little room."""
    home = home_of(workspace)
    if not os.access(home, os.W_OK):
        report.block("--home", f"{workspace.home} cannot be written", "choose another folder with --home")
    free = shutil.disk_usage(home).free
    if free < GIB:
        report.block("disk", f"{free / GIB:.1f} GiB are free at {home}", "free at least 1 GiB")


def check_gpu(base: str, report: Report) -> None:
    """No GPU, or one too small, for a full-size model."""
    if base not in models.PUBLISHED:
        return
    cards = gpus()
    if not cards:
        report.warn("model.base", "no NVIDIA GPU is visible: FLUX on a CPU takes days", "use a GPU of 8 GB or more")
    elif max(card.memory_mib for card in cards) < 7_500:
        size = f"{cards[0].name} has {cards[0].memory_mib / 1024:.0f} GB"
        report.warn("model.base", size, "FLUX needs 8 GB or more")


def check_overridden(recipe: Recipe, report: Report) -> None:
    """Fields that nobody reads, because low VRAM stands above them."""
    train = recipe.train
    if recipe.model.low_vram is not True:
        return
    if train.quantize not in ("auto", "none", "nf4"):
        told = f"low VRAM keeps the base in 4 bit, whatever train.quantize={train.quantize} says"
        report.warn("train.quantize", told, "set model.low_vram=false, or train.quantize=none")
    if train.gradient_checkpointing not in ("auto", True):
        told = "low VRAM recomputes activations, whatever this says"
        report.warn("train.gradient_checkpointing", told, "set model.low_vram=false, or this to true")


def check_devices(recipe: Recipe, report: Report) -> None:
    """More devices than there are, processes that share one, or a base that cannot be shared out."""
    wanted, cards = recipe.train.devices, len(gpus())
    if recipe.train.strategy == "fsdp":
        if recipe.model.low_vram is True:
            told = "a base in shards is not quantised, and this quantises it"
            report.block("model.low_vram", told, "set model.low_vram=false, or train.strategy=ddp")
        if recipe.lora.kind == "dora":
            told = "a DoRA cannot be saved with the base in shards"
            report.block("lora.kind", told, "set lora.kind=lora, or train.strategy=ddp")
    if wanted == "auto" or wanted == 1:
        return
    if not cards:
        report.warn("train.devices", f"without a GPU, {wanted} processes share the CPU", "set train.devices=1")
    elif wanted > cards:
        report.block(
            "train.devices", f"{wanted} GPUs are asked for, and {cards} are visible", f"set train.devices={cards}"
        )


def processes(recipe: Recipe) -> int:
    """How many train together, each with its own batch."""
    devices = recipe.train.devices
    return (max(1, len(gpus())) if devices == "auto" else devices) * recipe.train.num_nodes


def check_arithmetic(recipe: Recipe, report: Report) -> None:
    """Numbers that this GPU does not compute with, or that buy nothing without one."""
    cards, stored = gpus(), stored_as(recipe)
    if not cards:
        if stored == "nf4":
            told = "4 bit on a CPU is slower than none"
            report.warn("model.low_vram", told, "set model.low_vram=false and train.quantize=none")
        if recipe.train.optimizer == "paged_adamw8bit":
            told = "without a GPU there is no memory to page from"
            report.warn("train.optimizer", told, "set train.optimizer=adamw8bit")
        return
    card = max(cards, key=lambda card: card.memory_mib)
    if (0, 0) < card.capability < BF16_SINCE and recipe.train.precision == "bf16-mixed":
        told = f"{card.name} has no bf16 and emulates it slowly"
        report.warn("train.precision", told, "use a GPU from Ampere on (RTX 30, A10, A100)")
    if (0, 0) < card.capability < FP8_SINCE and stored == "fp8":
        told = f"{card.name} does not multiply fp8: it saves memory there, and costs time"
        report.warn("train.quantize", told, "int8 is more exact at the same size: set train.quantize=int8")
