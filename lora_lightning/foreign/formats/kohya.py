"""kohya-ss' sd-scripts: the TOML that `flux_train_network.py --config_file` reads, and its dataset TOML.

Tables of the former only group; its settings are told apart by their last name. The update is scaled by
network_alpha / network_dim as here, so that rate, rank and alpha are carried over as they are.
Source: kohya-ss/sd-scripts, docs/flux_train_network.md, library/flux_train_utils.py, library/config_util.py.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_lightning.foreign.formats._kohya_sigma import timesteps, weighting
from lora_lightning.foreign.rules import (
    Fate,
    Rule,
    Setting,
    Translation,
    all_left,
    base,
    choose,
    clean,
    dataset,
    flatten,
    left,
    only,
    optimizer,
    same,
    sides,
    take,
    translate,
    when,
)
from lora_lightning.foreign.several import several

TOOL = "kohya sd-scripts"
DEFAULTS: Mapping[str, Any] = {
    "output_name": "imported",
    "learning_rate": 2e-6,
    "network_dim": 4,
    "network_alpha": 1,
    "max_train_steps": 1600,
    "optimizer_type": "AdamW",
    "timestep_sampling": "sigma",
    "discrete_flow_shift": 3.0,
    "sigmoid_scale": 1.0,
    "weighting_scheme": "uniform",
    "model_prediction_type": "sigma_scaled",
    "guidance_scale": 3.5,
    "network_module": "networks.lora_flux",
}
MARKS = {"network_module", "network_dim", "pretrained_model_name_or_path", "timestep_sampling", "optimizer_type",
         "image_dir", "train_data_dir"}  # fmt: skip
"""One of these is in every such file."""
OPTIMIZERS = {"AdamW": "adamw", "AdamW8bit": "adamw8bit", "PagedAdamW8bit": "paged_adamw8bit", "Prodigy": "prodigy",
              "AdaFactor": "adafactor", "Lion": "lion", "Lion8bit": "lion8bit"}  # fmt: skip
SCHEDULES = {"constant": "constant", "constant_with_warmup": "constant", "linear": "linear", "cosine": "cosine"}
SAME = ("discrete_flow_shift", "sigmoid_scale", "logit_mean", "logit_std", "mode_scale", "dataset_config",
        "cache_latents", "cache_latents_to_disk", "cache_text_encoder_outputs",
        "cache_text_encoder_outputs_to_disk")  # fmt: skip
"""Read with timestep_sampling, or always so here."""


def reads(path: Path) -> bool:
    """Whether it is such a file."""
    return any(setting.name in MARKS for setting in _settings(_values(path)))


def open_file(path: Path) -> Translation:
    """Translate a file that `reads` accepts, with the dataset file that it names, where that is there."""
    settings = _settings(_values(path))
    named = next((str(setting.value) for setting in settings if setting.name == "dataset_config"), "")
    beside = next((file for file in (path.parent / named, Path(named)) if named and file.is_file()), None)
    if beside:
        settings += _settings(_values(beside))
    told = several(_expanded(settings), folder="image_dir", repeats="num_repeats", is_regularisation="is_reg")
    return translate(TOOL, told.settings, {**RULES, **told.rules}, DEFAULTS)


def _values(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}


def _settings(values: Mapping[str, Any]) -> list[Setting]:
    return [Setting(each.key, each.name.rsplit(".", 1)[-1], each.value) for each in flatten(values)]


def _expanded(settings: Sequence[Setting]) -> list[Setting]:
    """`optimizer_args` and `network_args` hold settings of their own, as `name=value`."""
    found = []
    for setting in settings:
        if setting.name not in ("optimizer_args", "network_args") or not isinstance(setting.value, list):
            found.append(setting)
            continue
        for argument in setting.value:
            name, _, value = str(argument).partition("=")
            found.append(Setting(f"{setting.key}.{name}", f"{setting.name}.{name}", value))
    return found


def _learning_rate(value: Any, settings: Mapping[str, Any]) -> Fate:
    if "unet_lr" in settings:
        return Fate("left", note="unet_lr stands above it")
    return Fate("taken", {"train.learning_rate": float(value)})


def _steps(value: Any, settings: Mapping[str, Any]) -> Fate:
    if "max_train_epochs" in settings:
        return Fate("left", note="max_train_epochs stands above it")
    return Fate("taken", {"train.steps": int(value)})


def _module(value: Any, _: Mapping[str, Any]) -> Fate:
    if value == "networks.lora_flux":
        # It adapts every linear of the blocks, those of the modulation as well.
        return Fate("taken", {"lora.kind": "lora", "lora.targets": "modulation"})
    return Fate("left", note="set lora.kind (lora, dora, lokr, loha) by hand")


def _train_blocks(value: Any, _: Mapping[str, Any]) -> Fate:
    blocks = {"single": r"single_transformer_blocks\..*", "double": r"transformer_blocks\..*"}
    if value not in blocks:
        return Fate("same") if value == "all" else Fate("left", note="no such blocks")
    linears = r"(?:to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out|net\.0\.proj|net\.2|proj_mlp|proj_out|linear)"
    return Fate("taken", {"lora.modules": rf"{blocks[value]}\.{linears}"})


def _resolution(value: Any, _: Mapping[str, Any]) -> Fate:
    """`1024`, `"1024,768"` or `[1024, 768]`, a width and a height: the side of a square of that area."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    width, height = (int(parts[0]), int(parts[-1]))
    return Fate("taken", {"dataset.resolutions": sides(round((width * height) ** 0.5))})


def _betas(value: Any, _: Mapping[str, Any]) -> Fate:
    parts = str(value).strip("()[] ").split(",")
    return Fate("taken", {"train.betas": [float(part) for part in parts if part.strip()]})


def _huber(target: str) -> Rule:
    """Settings of the Huber loss count only with it."""

    def rule(value: Any, settings: Mapping[str, Any]) -> Fate:
        if settings.get("loss_type") != "huber":
            return Fate("left", note="counts only with loss_type=huber, there as well")
        if target == "train.huber_schedule" and value not in ("constant", "exponential"):
            return Fate("left", note="no such schedule here; constant is used")
        return Fate("taken", {target: value})

    return rule


def _keep_tokens(value: Any, settings: Mapping[str, Any]) -> Fate:
    if not settings.get("shuffle_caption"):
        return Fate("left", note="counts only with shuffle_caption, there as well")
    return Fate("taken", {"dataset.keep_tags": int(value)})


def _prior(value: Any, settings: Mapping[str, Any]) -> Fate:
    if not any(name.endswith("is_reg") and regularises for name, regularises in settings.items()):
        return Fate("left", note="counts only with a regularisation set, there as well")
    return Fate("taken", {"dataset.regularisation_weight": float(value)})


RULES: Mapping[str, Rule] = {
    "output_name": take("name", clean),
    "pretrained_model_name_or_path": base,
    "ae": lambda value, _: Fate("taken", {"model.files": {"ae": str(value)}}),
    "clip_l": lambda value, _: Fate("taken", {"model.files": {"clip_l": str(value)}}),
    "t5xxl": lambda value, _: Fate("taken", {"model.files": {"t5xxl": str(value)}}),
    "network_module": _module,
    "network_dim": take("lora.rank", int),
    "network_alpha": take("lora.alpha", float, "the update is scaled by alpha / rank, as there"),
    "network_dropout": take("lora.dropout", float),
    "network_weights": take("lora.init_from"),
    "network_train_unet_only": only(True, "text encoders are not trained here"),
    "network_args.train_blocks": _train_blocks,
    "network_args.*": left("ranks and modules by regular expression: lora.ranks, lora.modules"),
    "learning_rate": _learning_rate,
    "unet_lr": take("train.learning_rate", float),
    "lr_scheduler": choose("train.schedule", SCHEDULES, "no such schedule here; the rate stays constant"),
    "lr_warmup_steps": take("train.warmup", float),
    "optimizer_type": optimizer(OPTIMIZERS, "optimizer_args.weight_decay"),
    "optimizer_args.weight_decay": take("train.weight_decay", float),
    "optimizer_args.betas": _betas,
    "optimizer_args.*": left("the optimizer's own value is used"),
    "max_train_steps": _steps,
    "train_batch_size": take("train.batch_size", int),
    "batch_size": take("train.batch_size", int),
    "gradient_accumulation_steps": take("train.accumulate", int),
    "gradient_checkpointing": take("train.gradient_checkpointing", bool),
    "max_grad_norm": take("train.max_gradient_norm", float),
    "seed": take("seed", int),
    "mixed_precision": choose("train.precision", {"bf16": "bf16-mixed", "no": "32-true"}, "bf16-mixed is used"),
    "timestep_sampling": timesteps,
    "weighting_scheme": weighting,
    "model_prediction_type": only("raw", "its target is not what it predicts; here both are the velocity (raw)"),
    "guidance_scale": only(1.0, "training always feeds guidance 1, which keeps the distillation"),
    "loss_type": choose("train.loss", {"l2": "mse", "huber": "huber"}, "no such loss here; mse is used"),
    "huber_c": _huber("train.huber_delta"),
    "huber_schedule": _huber("train.huber_schedule"),
    "image_dir": dataset,
    "train_data_dir": dataset,
    "resolution": _resolution,
    "num_repeats": take("dataset.repeats", int),
    "caption_dropout_rate": take("dataset.caption_dropout", float),
    "shuffle_caption": when({"dataset.shuffle_tags": 8}),
    "keep_tokens": _keep_tokens,
    "flip_aug": take("dataset.flip", bool),
    "bucket_no_upscale": only(True, "pictures are not enlarged; dataset.enlarge=true would"),
    "alpha_mask": choose("dataset.masks", {"true": "alpha", "false": "none"}),
    "class_tokens": take("trigger"),
    "is_reg": only(False, "it names no folder"),
    "prior_loss_weight": _prior,
    "save_every_n_steps": take("train.checkpoint_every", int),
    "sample_every_n_steps": take("train.sample_every", int),
    "apply_t5_attn_mask": only(False, "no program that draws masks T5's padding; training with a mask differs"),
    "max_data_loader_n_workers": take("dataset.workers", int),
    "enable_bucket": only(True, "every picture keeps its shape in a bucket"),
    **all_left(
        {
            "the card decides here: model.low_vram=auto, or a memory preset": "fp8_base blocks_to_swap split_mode "
            "highvram lowram cpu_offload_checkpointing",
            "how it is computed is decided here": "sdpa xformers",
            "captions come in with the pictures": "caption_extension",
            "runs lie in the workspace": "output_dir logging_dir",
            "TensorBoard is always written": "log_with",
            "a .safetensors file in the base's precision is written": "save_model_as save_precision",
            "set train.checkpoint_every in steps": "save_every_n_epochs",
            "text encoders are not trained here": "text_encoder_lr",
            "set dataset.masks=alpha or folder": "masked_loss",
            "put the prompts into sample.prompts": "sample_prompts",
            "512 for dev, 256 for schnell": "t5xxl_max_token_length",
            "set train.steps to epochs x pictures x repeats / batch size": "max_train_epochs",
        }
    ),
    **dict.fromkeys(SAME, same),
}
