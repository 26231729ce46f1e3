"""Stage `distill`: give `guidance_embeds` its meaning (Meng et al. 2023, stage one; as FLUX.1-dev was made).

The student's single pass learns the teacher's classifier-free guided velocity v_u + g (v_c - v_u) for g in [1, 5].
At g = 1 the target is the plain velocity, so a LoRA is trained at guidance 1 and sampled at any guidance.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .common import Average, Clock, Settings, adamw, load_module, save_module
from .flux import GUIDANCE, FluxMini, Source, compile_blocks, noise_levels

BATCH, PEAK = 768, 4e-4


def train(settings: Settings) -> None:
    """Train the student and save BUILD/distilled.safetensors."""
    source = Source(settings, BATCH)
    teacher, student = FluxMini(source.tokenizers), FluxMini(source.tokenizers)
    for model in (teacher, student):
        load_module(model, settings.folder / "flux.safetensors").to(settings.device)
        compile_blocks(model, settings)
    teacher.requires_grad_(False)
    trained = student.transformer
    optimizer, average = adamw(list(trained.parameters()), settings), Average({"t": trained}, 0.998)
    clock = Clock(settings.seconds, PEAK, warmup=100)
    tokenizers = source.tokenizers
    empty = [
        tok("", padding="max_length", return_tensors="pt").input_ids.to(settings.device)
        for tok in (tokenizers.t5, tokenizers.clip)
    ]
    while clock.tick(optimizer):
        x, t5_ids, clip_ids = source.next()
        count = len(x)
        noise, sigma = torch.randn_like(x), noise_levels(count, x.device)
        low, high = GUIDANCE
        guidance = low + (high - low) * torch.rand_like(sigma)
        z = torch.lerp(x, noise, sigma[:, None, None])
        with settings.autocast():
            with torch.no_grad():
                text, pooled = teacher.encode(t5_ids, clip_ids)
                blank, blank_pooled = teacher.encode(*empty)
                both = teacher.velocity(
                    z.repeat(2, 1, 1),
                    sigma.repeat(2),
                    guidance.repeat(2),
                    torch.cat([text, blank.expand(count, -1, -1)]),
                    torch.cat([pooled, blank_pooled.expand(count, -1)]),
                )
                given, free = both.float().chunk(2)
                target = free + guidance[:, None, None] * (given - free)
            made = student.velocity(z, sigma, guidance, text, pooled)
        loss = F.mse_loss(made.float(), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        average.update()
        clock.log("distill", 100, loss=loss)
    average.swap()
    save_module(student, settings.folder / "distilled.safetensors", half=True)
