"""Sigma: each density is that of the samples, and equals what was published."""

import math

import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.training_utils import compute_density_for_timestep_sampling
from hypothesis import given
from hypothesis import strategies as st

from lora_lightning.train.timesteps import Timesteps, resolution_mu, shift_sigma

EACH = [
    Timesteps(shift="none"),
    Timesteps(),
    Timesteps(mean=1.2, std=0.6, shift=3.0),
    Timesteps("sigmoid", std=1.5),
    Timesteps("uniform"),
    Timesteps("uniform", shift="none"),
    Timesteps("mode"),
    Timesteps("mode", mode_scale=-0.9, shift=0.5),
    Timesteps("style"),
    Timesteps("style", shift="none"),
]


def drawn(timesteps, tokens, count=20_000):
    generator = torch.Generator().manual_seed(0)
    raw = (torch.randn if timesteps.from_normal else torch.rand)(count, generator=generator, dtype=torch.float64)
    return torch.tensor([timesteps.sigma(value, tokens) for value in raw.tolist()], dtype=torch.float64)


def below(timesteps, tokens, limits):
    """The share of sigma below each limit, by integrating the density over logit(sigma)."""
    found, step = [], 0.005
    grid = [1 / (1 + math.exp(-z * step)) for z in range(-2800, 2800)]
    for limit in limits:
        found.append(step * sum(timesteps.density(s, tokens) * s * (1 - s) for s in grid if s < limit))
    return torch.tensor(found)


@pytest.mark.parametrize("timesteps", EACH, ids=str)
@pytest.mark.parametrize("tokens", [1024, 5000])
def test_the_density_is_that_of_the_samples(timesteps, tokens):
    limits = [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98]
    sigma = drawn(timesteps, tokens)
    measured = torch.tensor([(sigma < limit).double().mean() for limit in limits])
    assert (measured - below(timesteps, tokens, limits)).abs().max() < 0.014  # 99.9 % by Dvoretzky-Kiefer-Wolfowitz
    assert below(timesteps, tokens, [1.0]).item() == pytest.approx(1.0, abs=0.002)


@given(st.sampled_from(EACH), st.integers(4, 20_000), st.floats(-4, 4), st.floats(0.001, 1))
def test_sigma_is_between_picture_and_noise_and_follows_the_draw(timesteps, tokens, drawn, further):
    if not timesteps.from_normal:
        drawn, further = (drawn + 4) / 9, further / 9
    sigma, other = timesteps.sigma(drawn, tokens), timesteps.sigma(drawn + further, tokens)
    assert 0 <= sigma <= 1
    assert (sigma > other) if timesteps.sampler == "mode" else (sigma < other)


@pytest.mark.parametrize(("side", "mu", "k"), [(512, 0.630, 1.878), (768, 0.847, 2.332), (1024, 1.150, 3.158)])
def test_shift_by_resolution_has_the_published_values(side, mu, k):
    tokens = (side // 16) ** 2
    assert resolution_mu(tokens) == pytest.approx(mu, abs=1e-3)
    assert resolution_mu(tokens) == pytest.approx(calculate_shift(tokens))
    assert Timesteps().factor(tokens) == pytest.approx(k, abs=1e-3)
    assert Timesteps(shift=2.5).factor(tokens) == 2.5
    assert Timesteps(shift="none").factor(tokens) == 1


def test_shift_moves_the_middle_to_where_its_formula_says():
    assert [shift_sigma(sigma, 3.0) for sigma in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.0, 0.5, 0.75, 1.0])
    by_mu = [math.exp(0.9) / (math.exp(0.9) + (1 / sigma - 1)) for sigma in (0.1, 0.5, 0.9)]
    assert [shift_sigma(sigma, math.exp(0.9)) for sigma in (0.1, 0.5, 0.9)] == pytest.approx(by_mu)


def test_style_is_much_noise_where_diffusers_wants_the_other_sign():
    """diffusers takes its draw as a place in a table that falls from noise to picture: -3 there is +3 here."""
    sigma = drawn(Timesteps("style"), 4096)
    assert sigma.median().item() == pytest.approx(1 / (1 + math.exp(-3)), abs=0.005)
    generator = torch.Generator().manual_seed(0)
    place = compute_density_for_timestep_sampling("logit_normal", 20_000, -3.0, 1.0, generator=generator)
    assert sigma.mean().item() == pytest.approx((1 - place).mean().item(), abs=0.005)
    # log-SNR ~ N(-6, 2) of the paper (arXiv 2411.14793), where SNR = ((1 - sigma) / sigma)^2
    log_snr = 2 * torch.log((1 - sigma) / sigma)
    assert log_snr.mean().item() == pytest.approx(-6, abs=0.05)
    assert log_snr.std().item() == pytest.approx(2, abs=0.05)


def test_style_follows_the_resolution_from_1024_pixels_down():
    """SD3's shift by sqrt(tokens / tokens of 1024 pixels) adds half its logarithm to logit(sigma)."""
    logit = torch.logit(drawn(Timesteps("style"), 1024)).mean() - torch.logit(drawn(Timesteps("style"), 4096)).mean()
    assert logit.item() == pytest.approx(0.5 * math.log(1024 / 4096), abs=1e-6)


def test_mode_is_that_of_diffusers():
    uniform = torch.rand(1000, generator=torch.Generator().manual_seed(3))
    theirs = compute_density_for_timestep_sampling(
        "mode", 1000, mode_scale=1.29, generator=torch.Generator().manual_seed(3)
    )
    ours = [Timesteps("mode", shift="none").sigma(value, 64) for value in uniform.tolist()]
    assert ours == pytest.approx(theirs.tolist(), abs=1e-5)
