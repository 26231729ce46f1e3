"""Stage `encoder`: encoder-mini, a CLIP trained on pictures and captions of the world, with a layer that knows style.

InfoNCE (Radford et al. 2021, fig. 3) plus two helpers that are dropped afterwards: a concept classifier on the
picture's embedding, and a style classifier on the mean patch token of hidden state `STYLE_LAYER`.
"""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import nn

from ..world import captions
from ..world.compose import Batch, Painter
from ..world.concepts import STYLES
from ..world.disguise import DISGUISES, Looks
from ..world.scene import base_rows
from . import models
from .common import Clock, Settings, World, adamw, batches, resume, save_module

BATCH, PEAK = 768, 1.2e-3
LOOKS = len(STYLES) + len(DISGUISES)


def train(settings: Settings) -> None:
    """Train and save BUILD/encoder.safetensors."""
    world, tokenizer = World.load(settings.folder), models.Tokenizers(settings.folder).clip
    painter = Painter(world.atlas, settings.device)
    sampler = world.sampler([*base_rows(), STYLES.index("retro")])
    size = settings.batch(BATCH)

    def make(draw: random.Random) -> tuple[Batch, torch.Tensor]:
        scenes = [sampler.scene(draw) for _ in range(size)]
        texts = [captions.plain_prompt(scene, world.words, draw) for scene in scenes]
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        return Batch.of(scenes), tokens.input_ids

    stream = batches(make, settings)
    model = models.encoder(tokenizer)
    resume(model, settings.folder / "encoder.safetensors")
    model.to(settings.device)
    helpers = nn.ModuleDict({"concept": nn.Linear(128, len(world.words)), "style": nn.Linear(144, LOOKS)})
    helpers.to(settings.device)
    parameters = [*model.parameters(), *helpers.parameters()]
    optimizer, clock = adamw(parameters, settings, decay=0.05), Clock(settings.seconds, PEAK)
    while clock.tick(optimizer):
        batch, ids = next(stream)
        batch, ids = batch.to(settings.device), ids.to(settings.device)
        looks = Looks.random(size, 0.5, painter.device)
        with torch.no_grad():
            pictures = painter.paint(batch, looks)
        with settings.autocast():
            losses = _losses(model, helpers, pictures, ids, batch, looks.kind)
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        clock.log("encoder", 100, **losses)
    save_module(model, settings.folder / "encoder.safetensors", half=True)


def _losses(
    model: nn.Module,
    helpers: nn.ModuleDict,
    pictures: torch.Tensor,
    ids: torch.Tensor,
    batch: Batch,
    kind: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Contrastive, concept and style losses; disguised pictures count as styles of their own."""
    seen = model.vision_model(pixel_values=pictures, output_hidden_states=True)
    image = F.normalize(model.visual_projection(seen.pooler_output).float(), dim=-1)
    text = F.normalize(model.text_projection(model.text_model(input_ids=ids).pooler_output).float(), dim=-1)
    logits = image @ text.T * model.logit_scale.exp().clamp(max=100)
    wanted = torch.arange(len(ids), device=ids.device)
    contrast = 0.5 * (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted))
    look = torch.where(kind > 0, len(STYLES) + kind, batch.style)
    style = helpers["style"](seen.hidden_states[models.STYLE_LAYER][:, 1:].mean(1)).float()
    concept = helpers["concept"](image * 10).float()
    return {
        "contrast": contrast,
        "concept": 0.5 * F.cross_entropy(concept, batch.drawing),
        "style": 0.3 * F.cross_entropy(style, look),
    }
