"""ostris' ai-toolkit: YAML with `job: extension` and one process of type sd_trainer or diffusion_trainer.

It trains with alpha = rank whatever `linear_alpha` says, adapts every linear of the blocks, does not shift sigma, and
feeds guidance 1. Source: ostris/ai-toolkit, config/examples, toolkit/config_modules.py, toolkit/lora_special.py.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from lora_lightning.foreign.rules import (
    Fate,
    Rule,
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

TOOL = "ai-toolkit"
DEFAULTS: Mapping[str, Any] = {
    "name": "imported",
    "network.type": "lora",
    "network.linear": 4,
    "train.lr": 1e-6,
    "train.steps": 1000,
    "train.optimizer": "adamw",
    "train.timestep_type": "sigmoid",
    "datasets.resolution": 512,
}
ALIASES = {
    "network.rank": "network.linear",
    "network.alpha": "network.linear_alpha",
    "train.gradient_accumulation": "train.gradient_accumulation_steps",
    "datasets.dataset_path": "datasets.folder_path",
}
OPTIMIZERS = {"adamw8bit": "adamw8bit", "adamw": "adamw", "lion": "lion", "lion8bit": "lion8bit",
              "prodigy": "prodigy", "adafactor": "adafactor"}  # fmt: skip


def reads(path: Path) -> bool:
    """Whether it is such a file."""
    values = _values(path)
    return isinstance(values.get("config"), dict) and "process" in values["config"]


def open_file(path: Path) -> Translation:
    """Translate a file that `reads` accepts; of several processes the first."""
    config = _values(path)["config"]
    processes = config["process"] if isinstance(config["process"], list) else [config["process"]]
    process = next((each for each in processes if isinstance(each, dict)), {})
    settings = [*flatten({key: value for key, value in config.items() if key != "process"}), *flatten(process)]
    named = [replace(setting, name=ALIASES.get(setting.name, setting.name)) for setting in settings]
    told = several(
        named, folder="datasets.folder_path", repeats="datasets.num_repeats", is_regularisation="datasets.is_reg"
    )
    return translate(TOOL, told.settings, {**RULES, **told.rules}, DEFAULTS)


def _values(path: Path) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def _timesteps(value: Any, _: Mapping[str, Any]) -> Fate:
    """The sampler, and the shift that it does not make."""
    exact = {"sigmoid": "sigmoid", "linear": "uniform"}
    near = {"weighted": "uniform", "lognorm_blend": "sigmoid", "shift": "sigmoid"}
    if value not in {**exact, **near}:
        return Fate("left", note="no such sampler here")
    shift = {"train.shift": "resolution" if value == "shift" else "none"}
    note = "the closest that there is here" if value in near else ""
    return Fate("taken", {"train.timesteps": {**exact, **near}[value], **shift}, note)


def _kind(value: Any, _: Mapping[str, Any]) -> Fate:
    """The kind of adapter; it is on every linear of the blocks."""
    if value in ("lora", "lokr", "dora"):
        return Fate("taken", {"lora.kind": value, "lora.targets": "modulation"})
    return Fate("left", note="no such adapter here; a LoRA is trained")


def _alpha(value: Any, settings: Mapping[str, Any]) -> Fate:
    if value == settings["network.linear"]:
        return Fate("same")
    return Fate("left", note="ai-toolkit sets alpha = rank whatever it says, and so it is here")


def _ema(value: Any, settings: Mapping[str, Any]) -> Fate:
    if not settings.get("train.ema_config.use_ema", True):
        return Fate("left", note="the moving average is off")
    return Fate("taken", {"train.ema_decay": float(value)})


RULES: Mapping[str, Rule] = {
    "name": take("name", clean),
    "trigger_word": take("trigger"),
    "type": same,
    "network.type": _kind,
    "network.linear": take("lora.rank", int),
    "network.linear_alpha": _alpha,
    "network.lokr_factor": take("lora.factor", int),
    "network.dropout": take("lora.dropout", float),
    "network.pretrained_lora_path": take("lora.init_from"),
    "network.network_kwargs.*": left("name the modules by a regular expression: lora.modules"),
    "save.save_every": take("train.checkpoint_every", int),
    "save.push_to_hub": only(False, "`publish` pushes the finished LoRA"),
    "save.hf_repo_id": take("publish.repo"),
    "save.hf_private": take("publish.private", bool),
    "save.*": left("checkpoints are kept by their own rules here"),
    "datasets.folder_path": dataset,
    "datasets.resolution": take("dataset.resolutions", sides),
    "datasets.num_repeats": take("dataset.repeats", int),
    "datasets.caption_dropout_rate": take("dataset.caption_dropout", float),
    "datasets.shuffle_tokens": when({"dataset.shuffle_tags": 8}),
    "datasets.flip_x": take("dataset.flip", bool),
    "datasets.is_reg": only(False, "it names no folder"),
    "datasets.cache_latents_to_disk": same,
    "datasets.cache_latents": same,
    "train.batch_size": take("train.batch_size", int),
    "train.steps": take("train.steps", int),
    "train.gradient_accumulation_steps": take("train.accumulate", int),
    "train.train_unet": only(True, "the transformer is what is trained here"),
    "train.train_text_encoder": only(False, "text encoders are not trained here"),
    "train.gradient_checkpointing": take("train.gradient_checkpointing", bool),
    "train.noise_scheduler": only("flowmatch", "FLUX is trained by flow matching"),
    "train.optimizer": optimizer(OPTIMIZERS, "train.optimizer_params.weight_decay"),
    "train.optimizer_params.weight_decay": take("train.weight_decay", float),
    "train.optimizer_params.betas": take("train.betas", list),
    "train.lr": take("train.learning_rate", float, "alpha = rank there, so the effective rate is this very number"),
    "train.lr_scheduler": choose("train.schedule", {"constant": "constant", "linear": "linear", "cosine": "cosine"}),
    "train.max_grad_norm": take("train.max_gradient_norm", float),
    "train.timestep_type": _timesteps,
    "train.loss_type": choose("train.loss", {"mse": "mse", "pseudo-huber": "huber"}, "no such loss here; mse is used"),
    "train.ema_config.use_ema": same,
    "train.ema_config.ema_decay": _ema,
    "train.dtype": choose("train.precision", {"bf16": "bf16-mixed", "fp32": "32-true", "float32": "32-true"}),
    "train.diff_output_preservation": when({"train.preservation": 1.0}),
    "train.diff_output_preservation_class": take("train.class_word"),
    "train.content_or_style": only("balanced", "sigma is not skewed here; for a style see train.timesteps=style"),
    "train.bypass_guidance_embedding": only(False, "the guidance embedding is always used, and fed 1"),
    "train.cfg_scale": only(1, "training always feeds guidance 1, which keeps the distillation"),
    "train.disable_sampling": when({"train.sample_every": 0}),
    "train.unload_text_encoder": same,
    "train.cache_text_embeddings": same,
    "model.name_or_path": base,
    "model.assistant_lora_path": take("model.training_adapter"),
    "model.is_flux": same,
    "model.arch": same,
    "sample.sample_every": take("train.sample_every", int),
    "sample.width": take("sample.width", int),
    "sample.height": take("sample.height", int),
    "sample.prompts": take("sample.prompts"),
    "sample.samples.prompt": take("sample.prompts"),
    "sample.seed": take("sample.seed", int),
    "sample.walk_seed": only(True, "each sample prompt has the next seed here"),
    "sample.guidance_scale": take("sample.guidance", float),
    "sample.sample_steps": take("sample.steps", int),
    "sample.sampler": only("flowmatch", "samples are drawn as the stock pipeline draws"),
    **all_left(
        {
            "the card decides here: model.low_vram=auto, or a memory preset": "model.quantize model.quantize_te "
            "model.qtype model.qtype_te model.low_vram model.layer_offloading",
            "FLUX has no convolutions to adapt": "network.conv network.conv_alpha",
            "put the masks into DATASET/masks and set dataset.masks=folder": "datasets.mask_path",
            "put the references into DATASET/references and set dataset.references=true": "datasets.control_path",
            "captions come in with the pictures": "datasets.caption_ext datasets.default_caption",
            "the first sample shows the base": "train.skip_first_sample sample.sample_start_step",
            "FLUX takes no negative prompt": "sample.neg",
            "the device is chosen when the run starts": "device",
            "runs lie in the workspace": "training_folder",
            "TensorBoard shows the time of each phase": "performance_log_every logging.log_every",
        }
    ),
}
