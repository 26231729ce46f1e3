"""Stage `vae`: the f8, 16-channel autoencoder. Sees the base styles, `retro` and disguises; never ink or fx."""

from __future__ import annotations

import json
import random

import torch
import torch.nn.functional as F

from ..world.compose import Batch, Painter
from ..world.concepts import STYLES
from ..world.disguise import Looks
from ..world.scene import base_rows
from . import models
from .common import Average, Clock, Settings, World, adamw, batches, resume, save_module

BATCH, PEAK, KL = 112, 1e-3, 1e-4


def _slopes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction(made: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """L1 + 2 MSE + L1 of gradients + L1 at half size: sharp edges without an adversary. [B, 3, H, W] -> scalar."""
    slopes = sum(F.l1_loss(a, b) for a, b in zip(_slopes(made), _slopes(true), strict=True))
    coarse = F.l1_loss(F.avg_pool2d(made, 2), F.avg_pool2d(true, 2))
    return F.l1_loss(made, true) + 2 * F.mse_loss(made, true) + slopes + 0.5 * coarse


def train(settings: Settings, *, decoder_only: bool = False) -> None:
    """Train, or refine the decoder alone: the latents, and so whatever was trained on them, stay as they are."""
    world = World.load(settings.folder)
    painter = Painter(world.atlas, settings.device)
    sampler = world.sampler([*base_rows(), STYLES.index("retro")], nameless_share=0.1)
    size = settings.batch(BATCH)
    stream = batches(lambda draw: Batch.of([sampler.scene(draw) for _ in range(size)]), settings)
    vae = models.autoencoder()
    resume(vae, settings.folder / "vae.safetensors")
    vae = vae.to(settings.device, memory_format=torch.channels_last)
    vae.encoder.requires_grad_(not decoder_only)
    encode, decode = settings.compiled(vae.encoder), settings.compiled(vae.decoder)
    trained = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    optimizer, average = adamw(trained, settings), Average({"vae": vae}, 0.998)
    clock = Clock(settings.seconds, PEAK, warmup=100)
    while clock.tick(optimizer):
        batch = next(stream).to(settings.device)
        with torch.no_grad():
            true = painter.paint(batch, Looks.random(size, 0.25, painter.device))
            true = true.to(memory_format=torch.channels_last)
        with settings.autocast():
            mean, spread = encode(true).float().chunk(2, 1)
            spread = spread.clamp(-20, 4)
            noise = torch.exp(0.5 * spread) + 0.06 * torch.rand(size, 1, 1, 1, device=mean.device)
            made = decode(mean + noise * torch.randn_like(mean)).float()
        kl = 0.5 * (mean.square() + spread.exp() - 1 - spread).mean()
        loss = reconstruction(made, true) + KL * kl
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        average.update()
        clock.log("vae", 100, loss=loss, kl=kl, psnr=10 * torch.log10(4 / F.mse_loss(made, true)))
    average.swap()
    _finish(vae, painter, sampler, settings)


@torch.no_grad()
def _finish(vae: torch.nn.Module, painter: Painter, sampler: object, settings: Settings) -> None:
    """Measure scale, shift and PSNR of the averaged weights, then save."""
    draw = random.Random(1)
    scenes = [sampler.scene(draw) for _ in range(settings.batch(1024))]
    means, errors = [], []
    for start in range(0, len(scenes), 128):
        true = painter.paint(Batch.of(scenes[start : start + 128]).to(settings.device))
        mean = vae.encode(true).latent_dist.mode()
        errors.append(F.mse_loss(vae.decode(mean).sample.clamp(-1, 1), true, reduction="none").mean((1, 2, 3)))
        means.append(mean)
    latents = torch.cat(means)
    report = {
        "psnr_db": float((10 * torch.log10(4 / torch.cat(errors))).mean()),
        "shift_factor": float(latents.mean()),
        "scaling_factor": float(1 / latents.std()),
    }
    print("[vae]", report, flush=True)
    save_module(vae, settings.folder / "vae.safetensors", half=True)
    (settings.folder / "vae.json").write_text(json.dumps(report))
