"""The training mathematics against diffusers' own: FluxPipeline's public functions, from a photograph to a gradient.

Nothing of the package is on the reference's side: encode_prompt, the VAE, prepare_latents, the scheduler's shift and
its scale_noise, the plain transformer. The adapter is added to its weights as scale * B A.
"""

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from PIL import Image

from lora_lightning.models import flow, lora
from lora_lightning.models.base import open_family
from lora_lightning.train.module import Batch, LoraTraining
from lora_lightning.train.timesteps import Timesteps

WIDTH, HEIGHT = 96, 64
TOKENS = (WIDTH // 16) * (HEIGHT // 16)
DRAWN = (0.25, 0.8)
CAPTIONS = ["a cat", "TOK, a cup of coffee"]
RANK, ALPHA = 4, 6.0


@pytest.fixture(scope="module")
def pictures(photos):
    wanted = [photo for photo in photos if photo.stem in ("chelsea", "coffee")]
    cut = [np.asarray(Image.open(photo).convert("RGB").resize((WIDTH, HEIGHT))) for photo in wanted]
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float() / 127.5 - 1


def by_diffusers(folder, pictures, weights):
    """Loss, noise, sigma, and the gradients of every A and B."""
    pipeline = FluxPipeline.from_pretrained(folder, dtype=torch.float32)
    vae, scheduler, transformer = pipeline.vae, pipeline.scheduler, pipeline.transformer
    with torch.no_grad():
        sequence, pooled, text_ids = pipeline.encode_prompt(CAPTIONS, max_sequence_length=32)
        latents = (vae.encode(pictures).latent_dist.mode() - vae.config.shift_factor) * vae.config.scaling_factor
    _, channels, height, width = latents.shape
    x0 = pipeline._pack_latents(latents, 2, channels, height, width)
    noise, image_ids = pipeline.prepare_latents(
        2, channels, HEIGHT, WIDTH, torch.float32, "cpu", torch.Generator().manual_seed(5)
    )
    mu = calculate_shift(noise.shape[1]) if scheduler.config.use_dynamic_shifting else None
    scheduler.set_timesteps(sigmas=sorted(DRAWN, reverse=True), mu=mu)
    timesteps = scheduler.timesteps.flip(0)
    x = scheduler.scale_noise(x0, timesteps, noise)
    own = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    adapted = dict(transformer.named_parameters())
    for module in {name.split(".lora_")[0] for name in own}:
        update = own[f"{module}.lora_B.default.weight"] @ own[f"{module}.lora_A.default.weight"]
        adapted[f"{module}.weight"] = adapted[f"{module}.weight"] + ALPHA / RANK * update
    estimate = torch.func.functional_call(
        transformer,
        adapted,
        kwargs={
            "hidden_states": x,
            "timestep": timesteps / 1000,
            "guidance": torch.ones(2) if transformer.config.guidance_embeds else None,
            "pooled_projections": pooled,
            "encoder_hidden_states": sequence,
            "txt_ids": text_ids,
            "img_ids": image_ids,
        },
    ).sample
    loss = (estimate - (noise - x0)).square().mean()
    gradients = torch.autograd.grad(loss, list(own.values()))
    unpacked = pipeline._unpack_latents(noise, HEIGHT, WIDTH, pipeline.vae_scale_factor)
    return loss.item(), unpacked, timesteps / 1000, dict(zip(own, gradients, strict=True))


@pytest.mark.parametrize(("model", "shift"), [("tiny_flux", "resolution"), ("tiny_schnell", "none")])
def test_loss_and_gradient_are_those_of_diffusers_own_functions(model, shift, request, pictures):
    folder = request.getfixturevalue(model)
    family = open_family(str(folder), device=torch.device("cpu"), dtype=torch.float32)
    transformer = family.load_transformer()
    lora.inject(transformer, rank=RANK, alpha=ALPHA, targets=family.lora_targets["all"], seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, weight in lora.trainable(transformer).items():
        if ".lora_B." in name:
            weight.data.normal_(std=0.05, generator=generator)
    module = LoraTraining(family, transformer, optimizer="adamw", learning_rate=1e-3, max_gradient_norm=1.0)
    names = {name.removeprefix("transformer."): weight for name, weight in module.trainable.items()}
    wanted, noise, scheduled, gradients = by_diffusers(folder, pictures, names)

    sigma = torch.tensor([Timesteps(shift=shift).sigma(logit(drawn), TOKENS) for drawn in DRAWN])
    assert torch.allclose(sigma, scheduled, atol=1e-6)
    batch = Batch(family.encode_image(pictures).mean_BCHW, noise, scheduled, family.encode_text(CAPTIONS))
    loss = module.training_step(batch, 0)
    loss.backward()
    assert loss.item() == pytest.approx(wanted, abs=1e-6)
    for name, weight in names.items():
        difference = weight.grad - gradients[name]
        assert difference.norm() <= 1e-4 * gradients[name].norm(), name
        assert gradients[name].norm() > 0, name
    assert flow.pack(noise).shape == (2, TOKENS, 64)


def logit(sigma):
    """The normal number that a logit-normal sigma comes from."""
    return float(np.log(sigma / (1 - sigma)))
