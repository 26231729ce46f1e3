"""Batches: a function of seed and k, in which every picture comes up once an epoch."""

from collections import Counter

import pytest
import safetensors.torch
import torch

from lora_lightning.datasets.buckets import Bucket
from lora_lightning.models import flow
from lora_lightning.train.cache import Cache
from lora_lightning.train.datamodule import BatchData, Batches
from lora_lightning.train.encode import Item

SIZES = [Bucket(64, 64)] * 5 + [Bucket(80, 48)] * 3


@pytest.fixture
def items(tmp_path):
    cache = Cache(tmp_path)
    found = []
    for number, bucket in enumerate(SIZES):
        shape = (1, 16, bucket.height // 8, bucket.width // 8)
        latents, text = cache.path("latents", of=number), cache.path("texts", of=number)
        mean, std = torch.full(shape, float(number)), torch.full(shape, 0.5)
        cache.ensure(latents, lambda mean=mean, std=std: {"mean": mean, "std": std})
        embedded = {"sequence": torch.full((1, 32, 32), float(number)), "pooled": torch.full((1, 32), float(number))}
        cache.ensure(text, lambda embedded=embedded: embedded)
        found.append(Item(bucket, latents, text))
    return found


def batches(items, **changes):
    options = {"batch_size": 2, "seed": 0, "timesteps": "logit_normal", "shift": "resolution"} | changes
    return Batches(items, **options)


def same(one, other):
    pairs = [(one.x0_BCHW, other.x0_BCHW), (one.noise_BCHW, other.noise_BCHW), (one.sigma_B, other.sigma_B)]
    return all(torch.equal(a, b) for a, b in [*pairs, *zip(one.text, other.text, strict=True)])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_each_epoch_takes_every_item_once_in_batches_of_one_bucket(items, batch_size):
    data = batches(items, batch_size=batch_size)
    per_epoch = -(-5 // batch_size) + -(-3 // batch_size)
    for epoch in range(3):
        members = [data.members(k) for k in range(epoch * per_epoch, (epoch + 1) * per_epoch)]
        assert Counter(n for batch in members for n in batch) == dict.fromkeys(range(8), 1)
        for batch in members:
            assert len({items[n].bucket for n in batch}) == 1
            assert 1 <= len(batch) <= batch_size


def test_batch_k_depends_on_seed_and_k_alone(items):
    straight = [batches(items)[k] for k in range(9)]
    data = batches(items)
    for k in (7, 0, 3, 8, 3):
        torch.manual_seed(k)
        assert same(data[k], straight[k])
    assert not same(batches(items, seed=1)[0], straight[0])
    assert not torch.equal(straight[0].noise_BCHW.flatten()[:99], straight[1].noise_BCHW.flatten()[:99])


def test_order_differs_between_epochs_and_seeds(items):
    data = batches(items)
    orders = [tuple(tuple(data.members(k)) for k in range(5 * epoch, 5 * epoch + 5)) for epoch in range(4)]
    orders.append(tuple(tuple(batches(items, seed=1).members(k)) for k in range(5)))
    assert len(set(orders)) == 5


def test_a_batch_holds_its_members_each_with_noise_of_its_own(items):
    data = batches(items, batch_size=3)
    k = next(k for k in range(9) if len(data.members(k)) == 3)
    batch, members = data[k], data.members(k)
    assert batch.x0_BCHW.shape == batch.noise_BCHW.shape
    for place, number in enumerate(members):
        assert batch.text.sequence_BLD[place, 0, 0] == number
        assert abs(batch.x0_BCHW[place].mean() - number) < 0.1  # the mean of its posterior
        assert abs(batch.x0_BCHW[place].std() - 0.5) < 0.05  # whose noise is drawn anew
    assert len({float(sigma) for sigma in batch.sigma_B}) == 3
    assert batch.sigma_B.dtype == torch.float32


def test_sigma_is_shifted_by_the_size_of_the_bucket(items):
    plain, shifted = batches(items, batch_size=1, shift="none"), batches(items, batch_size=1)
    for k in range(8):
        tokens = plain[k].x0_BCHW[0, 0].numel() // 4
        k_factor = flow.shift_factor("resolution", tokens)
        assert torch.equal(shifted[k].sigma_B, flow.shift_sigma(plain[k].sigma_B, k_factor))
    assert torch.equal(batches(items, shift=1.0)[0].sigma_B, batches(items, shift="none")[0].sigma_B)
    uniform = batches(items, timesteps="uniform", shift="none")[0].sigma_B
    assert not torch.equal(uniform, batches(items, shift="none")[0].sigma_B)


def test_the_loader_begins_anywhere_and_never_ends(items):
    data = batches(items)
    loader = iter(BatchData(data, start=6).train_dataloader())
    for k in range(6, 40):
        assert same(next(loader), data[k])


def test_an_entry_is_read_once_however_often_it_is_used(items):
    data = batches(items, batch_size=1)
    first = [data[k] for k in range(8)]
    for item in items:
        safetensors.torch.save_file({"mean": torch.zeros(1)}, item.latents)
    assert all(same(data[k], first[k]) for k in range(8))
