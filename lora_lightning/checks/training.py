"""How the adapter learns: settings that other trainers' users fell over, and fields that would do nothing."""

import importlib.util
import os

from lora_lightning.checks.model import FLUX2, pipeline_of, stored_as
from lora_lightning.checks.report import Report
from lora_lightning.recipe import Recipe
from lora_lightning.runs.gpu import gpus
from lora_lightning.train.plan import barred
from lora_lightning.train.timesteps import MAX_TOKENS

USUAL_SCALE = (0.25, 4.0)
HIGHEST_RATE, LOWEST_EFFECTIVE_RATE, HIGHEST_LION_RATE = 0.01, 1e-5, 1e-4
MOST_UNSAVED = 500
SHARE_AVERAGED = 4
"""A moving average over more than the last quarter of the steps remembers the beginning."""
PACKAGES = {"adamw8bit": "bitsandbytes", "paged_adamw8bit": "bitsandbytes", "lion8bit": "bitsandbytes",
            "prodigy": "prodigyopt"}  # fmt: skip


def check_training(recipe: Recipe, report: Report) -> None:
    """All of them."""
    _judging(recipe, report)
    _rate(recipe, report)
    _scale(recipe, report)
    _noise(recipe, report)
    _rhythm(recipe, report)
    _packages(recipe, report)
    _fast(recipe, report)
    if recipe.train.preservation and not recipe.trigger:
        report.block("train.preservation", "there is no trigger word to leave out", "set trigger=WORD, or 0 here")
    if recipe.dataset.caption_dropout > 0.5:
        told = f"{recipe.dataset.caption_dropout:.0%} of the steps see no caption"
        report.warn("dataset.caption_dropout", told, "0.05 to 0.1 is usual")
    if recipe.dataset.workers > (cores := os.cpu_count() or 1):
        told = f"{recipe.dataset.workers} loader processes share {cores} processor cores"
        report.warn("dataset.workers", told, f"set dataset.workers={min(4, cores)}")


def _judging(recipe: Recipe, report: Report) -> None:
    """Decisions that nothing is held out for."""
    train = recipe.train
    if not recipe.dataset.validation_share:
        for field_name in train.judged:
            report.block(field_name, "no picture is held out to judge by", "set dataset.validation_share=0.15")
        if train.stages:
            hint = "set dataset.validation_share=0.15 to keep only those that help"
            report.warn("train.stages", "no picture is held out, so every stage is kept", hint)
    elif train.judged and train.validate_every >= train.plan.steps:
        told = f"validating every {train.validate_every} steps looks at the last of {train.plan.steps} only"
        report.warn("train.validate_every", told, f"set train.validate_every={max(1, train.plan.steps // 10)}")


def _rate(recipe: Recipe, report: Report) -> None:
    train, where = recipe.train, "train.learning_rate"
    rate = train.learning_rate
    if train.optimizer == "prodigy":
        if rate < 0.1:
            problem = f"prodigy multiplies its own estimate by {rate:g} and will hardly move"
            report.warn(where, problem, "set train.learning_rate=1")
        return
    effective = rate * recipe.lora.scale
    if rate > HIGHEST_RATE:
        report.warn(where, f"{rate:g} is far more than usual", "1e-4 is gentle")
    elif train.optimizer.startswith("lion") and rate > HIGHEST_LION_RATE:
        report.warn(where, f"{rate:g} is much for lion, whose steps are larger", "set train.learning_rate=3e-5")
    elif effective < LOWEST_EFFECTIVE_RATE and not train.optimizer.startswith("lion"):
        told = f"{rate:g}, times alpha / rank {effective:.2g}, will hardly move the adapter"
        report.warn(where, told, "set train.learning_rate=1e-4 and leave lora.alpha empty")


def _scale(recipe: Recipe, report: Report) -> None:
    """An alpha far from the rank: the learning rate is no longer what it says."""
    lora, (low, high) = recipe.lora, USUAL_SCALE
    if not low <= lora.scale <= high:
        formula = "alpha / sqrt(rank)" if lora.rslora else "alpha / rank"
        told = f"{formula} is {lora.scale:.3g}: a learning rate of {recipe.train.learning_rate:g} acts like " \
               f"{recipe.train.learning_rate * lora.scale:.2g}"  # fmt: skip
        good = round(lora.rank**0.5) if lora.rslora else lora.rank
        report.warn("lora.alpha", told, f"set lora.alpha={good} and choose the rate itself")


def _noise(recipe: Recipe, report: Report) -> None:
    train = recipe.train
    largest = max(recipe.dataset.resolutions)
    shifted = train.shift not in ("none", 1)
    if not shifted and train.timesteps != "style" and (largest // 16) ** 2 >= MAX_TOKENS:
        told = f"sigma is not shifted at {largest} x {largest}: drawing begins with far more noise than is trained"
        report.warn("train.shift", told, "set train.shift=resolution")
    if train.timesteps == "style" and isinstance(train.shift, float) and train.shift > 1:
        told = f"style is much noise already; a shift of {train.shift:g} comes on top"
        report.warn("train.shift", told, "set train.shift=resolution")
    if train.timesteps == "logit_normal" and train.logit_mean < -1:
        told = f"a mean of {train.logit_mean:g} is little noise here: sigma 1 is noise, 0 is the picture"
        hint = f"for much noise, as diffusers' {train.logit_mean:g} is, set train.logit_mean={-train.logit_mean:g}"
        report.warn("train.logit_mean", told, hint)


def _rhythm(recipe: Recipe, report: Report) -> None:
    train = recipe.train
    unsaved = min(train.checkpoint_every, train.plan.steps)
    if unsaved > MOST_UNSAVED:
        told = f"an interruption loses up to {unsaved} steps"
        report.warn("train.checkpoint_every", told, "set train.checkpoint_every=250")
    averaged = 1 / (1 - train.ema_decay)
    if train.ema_decay and averaged * SHARE_AVERAGED > train.plan.steps:
        told = f"{train.ema_decay:g} averages over {averaged:.0f} of {train.plan.steps} steps, the first ones included"
        good = max(0.5, 1 - 10 / train.plan.steps)
        report.warn("train.ema_decay", told, f"set train.ema_decay={good:.3g}")


def _packages(recipe: Recipe, report: Report) -> None:
    """What an optimizer or a quantisation is made of."""
    needed = {"train.optimizer": PACKAGES.get(recipe.train.optimizer, "")}
    packed = recipe.train.quantize == "nf4" or recipe.model.low_vram is True
    needed["train.quantize" if recipe.train.quantize == "nf4" else "model.low_vram"] = "bitsandbytes" if packed else ""
    for where, package in needed.items():
        if package and not importlib.util.find_spec(package):
            report.block(where, f"{package} is not installed", f"pip install {package}, or choose another")


def _fast(recipe: Recipe, report: Report) -> None:
    """What the fast path does not know trains as without it; and what only it can do."""
    train, flux1 = recipe.train, pipeline_of(recipe.model.base) not in FLUX2
    reasons = barred(recipe.model, recipe.lora, train, flux1=flux1)
    if train.fast is True and reasons:
        told = f"it has no effect with this {' and '.join(reasons)}"
        report.warn("train.fast", told, "set train.fast=false, or train a plain LoRA of FLUX.1 without dropout")
    plain = bool(reasons) or train.fast is not True
    if train.stream not in ("auto", 0):
        told = "" if gpus() else "without a GPU there is nothing to stream to"
        told = told or ("only the fast path streams blocks" if plain else "")
        told = told or ("only blocks of a quantised base are streamed" if stored_as(recipe) == "none" else "")
        if told:
            report.warn("train.stream", told, "set train.stream=auto")
    if plain and train.gradient_checkpointing not in ("auto", True, False):
        told = "off the fast path all blocks are recomputed, or none"
        report.warn("train.gradient_checkpointing", told, "set train.gradient_checkpointing=true")
