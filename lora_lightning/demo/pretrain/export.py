"""Stage `export`: put the trained weights into folders that the ordinary `from_pretrained` calls open.

fp16 safetensors, every file under 16 MB. Writes BUILD/models/{flux-mini,captioner-mini,encoder-mini,judge}.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import FluxPipeline
from transformers import (
    CLIPImageProcessor,
    CLIPProcessor,
    GenerationConfig,
    LlavaProcessor,
    SiglipImageProcessor,
)

from ..world.scene import CANVAS
from ..world.tokens import CHAT_TEMPLATE, IMAGE
from . import models
from .common import Settings, load_module
from .flux import FluxMini

SHARD = "14MB"


def run(settings: Settings) -> None:
    """Write all folders of BUILD/models."""
    target, tokenizers = settings.folder / "models", models.Tokenizers(settings.folder)
    shutil.rmtree(target, ignore_errors=True)
    flux_mini(settings.folder, tokenizers).save_pretrained(target / "flux-mini", max_shard_size=SHARD)
    _captioner(settings.folder, tokenizers, target / "captioner-mini")
    _encoder(settings.folder, tokenizers, target / "encoder-mini")
    shutil.copytree(settings.folder / "judge", target / "judge")
    total = 0
    for path in sorted(path for path in target.rglob("*") if path.is_file()):
        path.chmod(0o644)
        total += path.stat().st_size
    print(f"[export] {total / 1e6:.2f} MB in {target}", flush=True)


def flux_mini(folder: Path, tokenizers: models.Tokenizers) -> FluxPipeline:
    """The pipeline in fp16, from the distilled weights if they are there."""
    distilled, plain = folder / "distilled.safetensors", folder / "flux.safetensors"
    parts = load_module(FluxMini(tokenizers), distilled if distilled.exists() else plain)
    vae = load_module(models.autoencoder(), folder / "vae.safetensors")
    measured = json.loads((folder / "vae.json").read_text())
    vae.register_to_config(shift_factor=measured["shift_factor"], scaling_factor=measured["scaling_factor"])
    pipeline = FluxPipeline(
        scheduler=models.scheduler(),
        vae=vae,
        text_encoder=parts.clip,
        tokenizer=tokenizers.clip,
        text_encoder_2=parts.t5,
        tokenizer_2=tokenizers.t5,
        transformer=parts.transformer,
    )
    pipeline.to(dtype=torch.float16)
    return pipeline


def _captioner(folder: Path, tokenizers: models.Tokenizers, target: Path) -> None:
    model = load_module(models.captioner(tokenizers.chat), folder / "captioner.safetensors").half()
    tokenizer = tokenizers.chat
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=64,
    )
    model.save_pretrained(target, max_shard_size=SHARD)
    pictures = SiglipImageProcessor(size={"height": CANVAS, "width": CANVAS})
    LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=models.PATCH,
        image_token=IMAGE,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(target)


def _encoder(folder: Path, tokenizers: models.Tokenizers, target: Path) -> None:
    model = load_module(models.encoder(tokenizers.clip), folder / "encoder.safetensors").half()
    model.save_pretrained(target, max_shard_size=SHARD)
    size = {"height": CANVAS, "width": CANVAS}
    pictures = CLIPImageProcessor(size=size, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    CLIPProcessor(image_processor=pictures, tokenizer=tokenizers.clip).save_pretrained(target)
