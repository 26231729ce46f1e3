"""Stage `flux`: flux-mini's transformer and both text encoders, trained together by rectified flow.

z_t = (1 - sigma) z + sigma eps, v = eps - z (Liu et al. 2022; FLUX's own sign), sigma logit-normal and shifted
(Esser et al. 2024, eq. 23). Shapes: B pictures, packed latents x_BLC = [B, 64, 64], text [B, 32, 256], pooled [B, 128].
"""

from __future__ import annotations

import json
import math
import random
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ..world import captions
from ..world.compose import Batch, Painter
from ..world.scene import base_rows
from . import models
from .common import Average, Clock, Settings, Team, World, adamw, batches, load_module, resume, save_module

BATCH, PEAK, SHIFT = 640, 1e-3, math.exp(0.4675)
SECOND_PEAK = 3e-4  # of a resumed stage: it anneals what is there
GUIDANCE = (1.0, 5.0)  # range that guidance_embeds knows
CHECKPOINT_SECONDS = 60.0


class FluxMini(nn.Module):
    """Transformer and text encoders as one trained thing, with the frozen autoencoder's latents as its data."""

    def __init__(self, tokenizers: models.Tokenizers) -> None:
        super().__init__()
        self.transformer = models.transformer()
        self.t5 = models.t5_encoder(tokenizers.t5)
        self.clip = models.clip_text(tokenizers.clip)
        for name, module in self.transformer.named_modules():
            if isinstance(module, nn.Linear) and (".norm" in name or name.startswith("norm_out")):
                nn.init.zeros_(module.weight)  # adaLN-zero (Peebles & Xie 2022): blocks start as identities
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.transformer.proj_out.weight)

    def encode(self, t5_ids: torch.Tensor, clip_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids [B, 32] each -> (prompt embeddings, pooled), without masks, as FluxPipeline does it."""
        return self.t5(input_ids=t5_ids).last_hidden_state, self.clip(input_ids=clip_ids).pooler_output

    def velocity(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        guidance: torch.Tensor,
        text: torch.Tensor,
        pooled: torch.Tensor,
    ) -> torch.Tensor:
        """Predicted v_BLC at noise level sigma [B]."""
        return self.transformer(
            hidden_states=x,
            timestep=sigma,
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=x.device),
            img_ids=picture_ids(x.device),
            return_dict=False,
        )[0]


def compile_blocks(model: FluxMini, settings: Settings) -> None:
    """Compile one double and one single block for all of their kind: seconds instead of minutes."""
    torch.backends.cuda.enable_cudnn_sdp(False)  # its backward read out of bounds here (torch 2.11, H200)
    if settings.cuda and not settings.eager:
        model.transformer.compile_repeated_blocks()


def picture_ids(device: torch.device) -> torch.Tensor:
    """(0, row, column) of the 8 x 8 packed latents: f32 [64, 3]."""
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    return torch.stack([torch.zeros(64), rows.flatten(), columns.flatten()], 1).to(device)


def pack(z: torch.Tensor) -> torch.Tensor:
    """[B, 16, 16, 16] -> [B, 64, 64], as FluxPipeline._pack_latents."""
    size = z.shape[0]
    return z.view(size, 16, 8, 2, 8, 2).permute(0, 2, 4, 1, 3, 5).reshape(size, 64, 64)


def noise_levels(count: int, device: torch.device) -> torch.Tensor:
    """Noise levels f32 [B]: logit-normal(0, 1) shifted by 1.6, and one in ten uniform for the ends."""
    plain = torch.sigmoid(torch.randn(count, device=device))
    plain = torch.where(torch.rand(count, device=device) < 0.1, torch.rand(count, device=device), plain)
    return SHIFT * plain / (1 + (SHIFT - 1) * plain)


class Source:
    """Endless (latents, token ids) batches: scenes and captions from workers, painted and encoded on the device."""

    def __init__(self, settings: Settings, batch: int) -> None:
        world, self.tokenizers = World.load(settings.folder), models.Tokenizers(settings.folder)
        sampler, size = world.sampler(base_rows()), settings.batch(batch)
        t5, clip = self.tokenizers.t5, self.tokenizers.clip

        def make(draw: random.Random) -> tuple[Batch, torch.Tensor, torch.Tensor]:
            scenes = [sampler.scene(draw) for _ in range(size)]
            texts = [captions.prompt(scene, world.words, draw, world.fillers) for scene in scenes]
            ids = [
                tok(
                    texts,
                    padding="max_length",
                    truncation=True,
                    max_length=tok.model_max_length,
                    return_tensors="pt",
                ).input_ids
                for tok in (t5, clip)
            ]
            return Batch.of(scenes), ids[0], ids[1]

        self.settings, self.size = settings, size
        self.stream, self.painter = batches(make, settings), Painter(world.atlas, settings.device)
        self.measured = json.loads((settings.folder / "vae.json").read_text())
        vae = load_module(models.autoencoder(), settings.folder / "vae.safetensors").to(settings.device).eval()
        self.encoder = settings.compiled(vae.encoder.to(memory_format=torch.channels_last).requires_grad_(False))

    @torch.no_grad()
    def next(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(x_BLC, T5 ids, CLIP ids) on the device."""
        batch, t5_ids, clip_ids = next(self.stream)
        device = self.settings.device
        pictures = self.painter.paint(batch.to(device)).to(memory_format=torch.channels_last)
        with self.settings.autocast():
            mean = self.encoder(pictures).float().chunk(2, 1)[0]
        z = (mean - self.measured["shift_factor"]) * self.measured["scaling_factor"]
        return (
            pack(z.contiguous()),
            t5_ids.to(device, non_blocking=True),
            clip_ids.to(device, non_blocking=True),
        )


def train(settings: Settings) -> None:
    """Train (on every GPU that torchrun gives) and save BUILD/flux.safetensors."""
    team = Team(settings)
    source = Source(replace(settings, seed=settings.seed + team.rank), BATCH)
    model = FluxMini(source.tokenizers)
    path = settings.folder / "flux.safetensors"
    peak = SECOND_PEAK if path.exists() else PEAK
    resume(model, path)
    model.to(settings.device)
    compile_blocks(model, settings)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    team.start(parameters, settings.seed)
    optimizer, average = adamw(parameters, settings), Average({"flux": model}, 0.999)
    clock, saved = Clock(settings.seconds, peak, warmup=400, floor=0.01, team=team), time.monotonic()
    low, high = GUIDANCE
    while clock.tick(optimizer):
        x, t5_ids, clip_ids = source.next()
        noise, sigma = torch.randn_like(x), noise_levels(len(x), x.device)
        guidance = low + (high - low) * torch.rand_like(sigma)  # no meaning yet: distill.py gives it one
        with settings.autocast():
            text, pooled = model.encode(t5_ids, clip_ids)
            made = model.velocity(torch.lerp(x, noise, sigma[:, None, None]), sigma, guidance, text, pooled)
        loss = F.mse_loss(made.float(), noise - x)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        team.average(parameters, clock.progress())
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update()
        clock.log("flux", 50, loss=loss, norm=norm)
        if team.rank == 0 and time.monotonic() - saved > CHECKPOINT_SECONDS:
            saved = time.monotonic()
            _save(model, average, path)
    if team.rank == 0:
        _save(model, average, path)


def _save(model: FluxMini, average: Average, path: Path) -> None:
    average.swap()
    save_module(model, path, half=True)
    average.swap()
