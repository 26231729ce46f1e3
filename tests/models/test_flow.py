"""The equations, against diffusers' own functions, published values, and their distributions."""

import math

import pytest
import torch
from diffusers import FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from lora_lightning.models import flow


@pytest.mark.parametrize("size", [(8, 8), (6, 10), (64, 2)])
def test_packing_is_that_of_diffusers_and_is_undone_by_unpacking(size):
    height, width = size
    x = torch.randn(2, 16, height, width)
    packed = flow.pack(x)
    assert torch.equal(packed, FluxPipeline._pack_latents(x, 2, 16, height, width))
    assert torch.equal(flow.unpack(packed, height, width), x)
    assert torch.equal(
        flow.image_ids(height, width),
        FluxPipeline._prepare_latent_image_ids(2, height // 2, width // 2, "cpu", torch.float32),
    )


@pytest.mark.parametrize(("side", "mu", "k"), [(512, 0.630, 1.878), (768, 0.847, 2.332), (1024, 1.150, 3.158)])
def test_shift_by_resolution_has_the_published_values(side, mu, k):
    tokens = (side // 16) ** 2
    assert flow.resolution_mu(tokens) == pytest.approx(mu, abs=1e-3)
    assert flow.resolution_mu(tokens) == pytest.approx(calculate_shift(tokens))
    assert flow.shift_factor("resolution", tokens) == pytest.approx(k, abs=1e-3)


def test_shift_moves_the_middle_to_where_its_formula_says():
    sigma = torch.tensor([0.0, 0.25, 0.5, 1.0])
    shifted = flow.shift_sigma(sigma, 3.0)
    assert shifted.tolist() == pytest.approx([0.0, 0.5, 0.75, 1.0])
    mu = math.log(3.0)
    by_mu = math.exp(mu) / (math.exp(mu) + (1 / sigma[1:] - 1))
    assert shifted[1:].tolist() == pytest.approx(by_mu.tolist())
    assert torch.equal(flow.shift_sigma(sigma, flow.shift_factor("none", 64)), sigma)
    assert flow.shift_factor(2.5, 64) == 2.5


def test_interpolation_runs_from_the_picture_to_the_noise_at_the_target_velocity():
    x0, noise = torch.randn(2, 16, 4, 4), torch.randn(2, 16, 4, 4)
    zero, one = torch.zeros(2), torch.ones(2)
    assert torch.equal(flow.interpolate(x0, noise, zero), x0)
    assert torch.equal(flow.interpolate(x0, noise, one), noise)
    early, late = flow.interpolate(x0, noise, one * 0.25), flow.interpolate(x0, noise, one * 0.75)
    assert torch.allclose((late - early) / 0.5, flow.target(x0, noise), atol=1e-5)


@pytest.mark.parametrize("name", ["logit_normal", "uniform"])
def test_sigma_follows_its_distribution(name):
    sigma = flow.SAMPLERS[name](20_000, torch.Generator().manual_seed(0))
    assert sigma.dtype == torch.float32
    at = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    wanted = at if name == "uniform" else torch.special.ndtr(torch.logit(at))
    measured = (sigma[:, None] < at).float().mean(0)
    assert (measured - wanted).abs().max() < 0.012  # 99.9 % of draws by Dvoretzky-Kiefer-Wolfowitz: 0.0138
