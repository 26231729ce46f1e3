"""From a recipe's sections to the planner and back: what is asked, what is trained, and the plan that a run keeps.

Importing this needs no torch: `check` and the dashboard show the same plan that the job follows.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from lora_lightning.models.config import LoraConfig, ModelConfig, resolve_training_adapter
from lora_lightning.models.memory import GIB, STATE, Adapter, Load, Setting, Storage
from lora_lightning.models.planner import LEAST_STEPS_COMPILED, Asked, Card, as_set, choose
from lora_lightning.models.reasons import reasons
from lora_lightning.models.shape import Shape, adapter_weights
from lora_lightning.runs.files import read_json, write_json
from lora_lightning.train.config import TrainConfig
from lora_lightning.train.prompts import SampleConfig, parse

log = logging.getLogger("lora_lightning")
FILE = "plan.json"
STORAGES: dict[str, tuple[Storage, ...]] = {
    "lora": ("none", "int8", "fp8", "nf4"),
    "dora": ("none", "nf4"),
    "lokr": ("none", "int8", "fp8"),
    "loha": ("none", "int8", "fp8"),
}
"""What each kind of adapter can stand on."""
OUTSIDE = (
    "x_embedder", "context_embedder", "proj_out", "norm_out.linear", "time_text_embed.timestep_embedder.linear_1",
    "time_text_embed.timestep_embedder.linear_2", "transformer_blocks.0.norm1.linear",
    "transformer_blocks.0.norm1_context.linear", "single_transformer_blocks.0.norm.linear",
)  # fmt: skip
"""Linears of FLUX.1 that the fast path has no adapter on."""
FAST_BY_ITSELF = False
"""On a GPU only the benchmark's loop has run on the fast path, no training to its end: until then it is asked for."""


def barred(model: ModelConfig, lora: LoraConfig, train: TrainConfig, *, flux1: bool) -> tuple[str, ...]:
    """The fields that the fast path cannot be with."""
    odd = {
        "lora.kind": lora.kind != "lora",
        "lora.dropout": lora.dropout > 0,
        "lora.targets": lora.targets == "modulation" and not lora.modules,
        "lora.modules": any(re.fullmatch(lora.modules, name) for name in OUTSIDE),
        "model.training_adapter": bool(resolve_training_adapter(model.training_adapter, model.base)),
        "model.base": not flux1,
        "train.strategy": train.strategy == "fsdp",
    }
    return tuple(name for name, is_odd in odd.items() if is_odd)


def asked(model: ModelConfig, lora: LoraConfig, train: TrainConfig, *, flux1: bool, processes: int) -> Asked:
    """What these sections say of how to run."""
    return Asked(
        quantize=train.quantize,
        recompute=train.gradient_checkpointing,
        fast=train.fast if train.fast != "auto" or FAST_BY_ITSELF else False,
        streamed=train.stream,
        low_vram=model.low_vram,
        barred=barred(model, lora, train, flux1=flux1),
        storages=STORAGES[lora.kind],
        compiled=train.plan.steps >= LEAST_STEPS_COMPILED,
        alone=processes == 1,
    )


def load_of(shape: Shape, lora: LoraConfig, train: TrainConfig, sample: SampleConfig, picture_tokens: int) -> Load:
    """What these sections train.

    Args:
        shape: of the transformer.
        lora: of what is learned.
        train: of how.
        sample: of what is drawn meanwhile.
        picture_tokens: of the largest picture, and of the one that it is an edit of.
    """
    rank = max([lora.rank, *lora.options["ranks"].values()])
    prompts = [parse(prompt) for prompt in sample.prompts]
    drawn = [(each.width or sample.width) * (each.height or sample.height) for each in prompts]
    return Load(
        shape,
        Adapter(adapter_weights(shape, lora.targets, rank), STATE[train.optimizer], averaged=train.ema_decay > 0),
        tokens=picture_tokens + shape.text_tokens,
        batch=train.batch_size,
        passes=2 if train.preservation else 1,
        number=2 if train.precision == "bf16-mixed" else 4,
        drawn=max(drawn, default=sample.width * sample.height),
    )


def settle(load: Load, wanted: Asked, card: Card | None, folder: Path, *, writes: bool) -> Setting:
    """Choose, say why, and keep both in the run's folder.

    A run that goes on, perhaps on another card, keeps its base as it was stored at first: what is learned depends on
    it.

    Args:
        load: what is trained.
        wanted: what the recipe says.
        card: the GPU; None for the CPU.
        folder: of the run.
        writes: whether this process does.
    """
    before = read_json(folder / FILE).get("quantize")
    if before and wanted.quantize == "auto" and wanted.low_vram is not True:
        wanted = replace(wanted, quantize=before)
    choice = choose(load, wanted, card) if card else as_set(wanted, load.shape.blocks)
    why = reasons(load, wanted, card, choice)
    told: dict[str, object] = {**asdict(choice.setting), "reasons": why}
    if choice.need and card:
        told["predicted_gib"] = {name: round(part / GIB, 2) for name, part in asdict(choice.need).items()}
        told["usable_gib"] = round(card.usable / GIB, 2)
    if writes:
        write_json(folder / FILE, told)
        log.info("plan: %s", "; ".join(why))
    if wanted.fast is True and wanted.barred:
        log.warning("train.fast has no effect with this %s", " and ".join(wanted.barred))
    if not choice.fits:
        log.warning("the memory will hardly do: close what else uses the GPU, or lower dataset.resolutions")
    return choice.setting


def relief(train: TrainConfig, resolutions: Sequence[int], setting: Setting) -> list[str]:
    """Settings that would take less memory, those that cost the least first.

    Args:
        train: what is set.
        resolutions: pixels.
        setting: how the base is held and a step is run.
    """
    found = []
    if train.batch_size > 1:
        found.append(f"train.batch_size=1 train.accumulate={train.batch_size * train.accumulate}")
    if not setting.spared:
        found.append("train.gradient_checkpointing=true")
    if train.optimizer in ("adamw", "prodigy", "lion"):
        found.append("train.optimizer=adamw8bit")
    if setting.quantize == "none":
        found.append("model.low_vram=true")
    if len(resolutions) > 1 or resolutions[0] > 512:
        found.append(f"dataset.resolutions=[{min(512, *resolutions)}]")
    return found or ["lora.rank=8", "lora.targets=attention"]
