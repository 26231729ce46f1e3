"""Masks and preservation in the training step of a real transformer."""

import pytest
import torch

from lora_lightning.models import lora
from lora_lightning.models.base import TextEmbedding, open_family
from lora_lightning.train.module import Batch, LoraTraining
from lora_lightning.train.preserve import base_alone, departure

CPU = torch.device("cpu")


@pytest.fixture
def module(tiny_flux):
    def build(preservation=0.0):
        family = open_family(str(tiny_flux), device=CPU, dtype=torch.float32)
        transformer = family.load_transformer()
        lora.inject(transformer, rank=4, alpha=4.0, targets=family.lora_targets["all"], seed=0)
        options = {"optimizer": "adamw", "learning_rate": 5e-3, "max_gradient_norm": 1.0}
        return LoraTraining(family, transformer, **options, preservation=preservation)

    return build


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    texts = [TextEmbedding(normal(2, 32, 32), normal(2, 32)) for _ in range(2)]
    return Batch(normal(2, 16, 6, 8), normal(2, 16, 6, 8), torch.tensor([0.3, 0.8]), texts[0], neutral=texts[1])


def learned(module, batch, steps=30):
    optimizer = module.configure_optimizers()
    losses = []
    for _ in range(steps):
        loss = module.losses(batch).mean
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def moved(module, batch):
    """How far the adapter moves the base's answer to the neutral text, at the noise of the batch."""
    sigma = batch.sigma_B.view(-1, 1, 1, 1)
    x = (1 - sigma) * batch.x0_BCHW + sigma * batch.noise_BCHW
    return departure(module.family, module.transformer, x, batch.sigma_B, batch.neutral)


def test_the_base_alone_is_the_base_to_the_bit_and_training_goes_on_as_before(module, batch):
    trained = module()
    learned(trained, batch, steps=2)
    plain = trained.family.load_transformer()
    arguments = (batch.x0_BCHW, batch.sigma_B, batch.text)
    with torch.no_grad():
        wanted, adapted = (trained.family.velocity(each, *arguments) for each in (plain, trained.transformer))
        with base_alone(trained.transformer):
            assert torch.equal(trained.family.velocity(trained.transformer, *arguments), wanted)
            assert all(weight.requires_grad for weight in trained.trainable.values())
        assert torch.equal(trained.family.velocity(trained.transformer, *arguments), adapted)
    assert not torch.equal(adapted, wanted)


def test_the_loss_is_that_of_the_batch_and_the_weighted_departure(module, batch):
    preserving = module(preservation=2.5)
    with torch.no_grad():
        for name, weight in preserving.trainable.items():
            if ".lora_B." in name:
                weight.normal_(std=0.5)
    alone = preserving.losses(batch._replace(neutral=None)).mean.item()
    departed = moved(preserving, batch).item()
    assert departed > 0.01
    assert preserving.losses(batch).mean.item() == pytest.approx(alone + 2.5 * departed, rel=1e-5)


def test_what_is_preserved_departs_less_and_the_batch_is_learned_all_the_same(module, batch):
    free, preserving = module(), module(preservation=5.0)
    losses = learned(free, batch._replace(neutral=None))
    learned(preserving, batch)
    assert losses[-1] < 0.9 * losses[0]
    assert preserving.losses(batch._replace(neutral=None)).mean < 0.95 * losses[0]
    assert moved(preserving, batch) < 0.25 * moved(free, batch)


def test_gradients_of_the_adapter_do_not_see_what_the_mask_leaves_out(module, batch, monkeypatch):
    masked, velocities = module(), []
    original = masked.family.velocity

    def velocity(*arguments):
        velocities.append(original(*arguments))
        velocities[-1].retain_grad()
        return velocities[-1]

    monkeypatch.setattr(masked.family, "velocity", velocity)
    mask = torch.zeros(2, 1, 6, 8)
    mask[0, :, :3] = 1
    masked.losses(batch._replace(neutral=None, mask_B1HW=mask)).mean.backward()
    gradient = velocities[-1].grad
    assert torch.count_nonzero(gradient[0, :, 3:]) == torch.count_nonzero(gradient[1]) == 0
    assert torch.count_nonzero(gradient[0, :, :3]) == gradient[0, :, :3].numel()
    assert any(weight.grad.abs().max() > 0 for weight in masked.trainable.values())
    masked.zero_grad()
    masked.losses(batch._replace(neutral=None, mask_B1HW=torch.zeros(2, 1, 6, 8))).mean.backward()
    assert all(torch.count_nonzero(weight.grad) == 0 for weight in masked.trainable.values())
