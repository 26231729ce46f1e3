"""The loss by its formula: huber, weights by sigma, masks, weights of pictures."""

import math

import pytest
import torch
import torch.nn.functional as F

from lora_lightning.train.objective import PLAIN, Objective, by_sample


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    velocity, target = (torch.randn(3, 16, 4, 6, generator=generator) for _ in range(2))
    return velocity.requires_grad_(), target, torch.tensor([0.1, 0.5, 0.9])


def test_by_default_it_is_the_mean_squared_error_to_the_bit(inputs):
    velocity, target, sigma = inputs
    loss, wanted = PLAIN(velocity, target, sigma), F.mse_loss(velocity, target)
    assert torch.equal(loss, wanted)
    assert torch.equal(*(torch.autograd.grad(value, velocity)[0] for value in (loss, wanted)))


@pytest.mark.parametrize("schedule", ["constant", "exponential"])
def test_huber_is_squared_below_delta_and_linear_above(inputs, schedule):
    _, target, sigma = inputs
    delta = 0.2 ** (sigma if schedule == "exponential" else torch.ones(3))
    objective = Objective("huber", 0.2, schedule)
    for error in (1e-3, 0.1, 5.0):
        for n in range(3):
            one = slice(n, n + 1)
            d = delta[n].item()
            loss = objective(target[one] + error, target[one], sigma[one]).item()
            assert loss == pytest.approx(2 * d * (math.sqrt(error**2 + d**2) - d), rel=2e-3)
    near, far = (objective(target + error, target, sigma).item() for error in (100.0, 200.0))
    assert far - near == pytest.approx(200 * delta.mean().item(), rel=1e-3)
    assert objective(target + 1e-2, target, sigma).item() == pytest.approx(1e-4, rel=0.02)


@pytest.mark.parametrize(
    ("weighting", "weight"),
    [
        ("none", lambda sigma: 1.0),
        ("sigma_sqrt", lambda sigma: sigma**-2),
        ("cosmap", lambda sigma: 2 / (math.pi * (1 - 2 * sigma + 2 * sigma**2))),
    ],
)
def test_weighting_by_sigma(inputs, weighting, weight):
    velocity, target, sigma = inputs
    each = [F.mse_loss(velocity[n], target[n]).item() * weight(sigma[n].item()) for n in range(3)]
    assert Objective(weighting=weighting)(velocity, target, sigma).item() == pytest.approx(sum(each) / 3, rel=1e-5)


def test_weighting_is_that_of_diffusers():
    from diffusers.training_utils import compute_loss_weighting_for_sd3

    sigma = torch.tensor([0.0, 0.001, 0.3, 1.0])
    zero, one = torch.zeros(4, 1, 1, 1), torch.ones(4, 1, 1, 1)
    for weighting in ("sigma_sqrt", "cosmap"):
        ours = [Objective(weighting=weighting)(one[:1], zero[:1], sigma[n : n + 1]).item() for n in range(4)]
        theirs = compute_loss_weighting_for_sd3(weighting, sigma).tolist()
        assert ours[1:] == pytest.approx(theirs[1:])
        assert math.isfinite(ours[0])


def test_what_a_mask_leaves_out_has_no_gradient_at_all_and_no_say(inputs):
    velocity, target, sigma = inputs
    mask = torch.zeros(3, 1, 4, 6)
    mask[:2, :, 1:3, 2:5] = 1
    mask[0, :, 1, 2] = 0.5
    loss = PLAIN(velocity, target, sigma, mask)
    (gradient,) = torch.autograd.grad(loss, velocity)
    assert torch.count_nonzero(gradient * (mask == 0)) == 0
    assert torch.count_nonzero(gradient * (mask > 0)) == int((mask > 0).sum()) * 16
    inside = (velocity - target)[0, :, 1:3, 2:5].square().mean(0)
    weights = mask[0, 0, 1:3, 2:5]
    wanted = ((inside * weights).sum() / weights.sum()).item()
    each = by_sample((velocity - target).square(), mask)
    assert each[0].item() == pytest.approx(wanted)
    assert each[2].item() == 0  # it shows nothing
    assert loss.item() == pytest.approx(each.mean().item())
    changed = torch.where(mask == 0, target + 7, target)
    assert torch.equal(PLAIN(velocity, changed, sigma, mask), loss)


def test_a_weight_of_zero_takes_a_picture_out(inputs):
    velocity, target, sigma = inputs
    loss = PLAIN(velocity, target, sigma, None, torch.tensor([1.0, 0.0, 0.5]))
    (gradient,) = torch.autograd.grad(loss, velocity)
    each = [F.mse_loss(velocity[n], target[n]).item() for n in range(3)]
    assert loss.item() == pytest.approx((each[0] + 0.5 * each[2]) / 3)
    assert torch.count_nonzero(gradient[1]) == 0
