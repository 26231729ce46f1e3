"""The equations, against diffusers' own functions."""

import pytest
import torch
from diffusers import FluxPipeline

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


def test_interpolation_runs_from_the_picture_to_the_noise_at_the_target_velocity():
    x0, noise = torch.randn(2, 16, 4, 4), torch.randn(2, 16, 4, 4)
    zero, one = torch.zeros(2), torch.ones(2)
    assert torch.equal(flow.interpolate(x0, noise, zero), x0)
    assert torch.equal(flow.interpolate(x0, noise, one), noise)
    early, late = flow.interpolate(x0, noise, one * 0.25), flow.interpolate(x0, noise, one * 0.75)
    assert torch.allclose((late - early) / 0.5, flow.target(x0, noise), atol=1e-5)
