"""Batches: a function of seed and k, in which every picture comes up once an epoch."""

import json
import os
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_lightning.datasets.buckets import Bucket, crop_box
from lora_lightning.datasets.crops import View
from lora_lightning.train.cache import Cache
from lora_lightning.train.datamodule import BatchData, Batches, Reading
from lora_lightning.train.encode import ImageEntry, Item, TextEntry
from lora_lightning.train.timesteps import Timesteps, shift_sigma

TEXT_SHAPES = {"sequence": (1, 32, 32), "pooled": (1, 32)}

SIZES = [Bucket(64, 64)] * 5 + [Bucket(80, 48)] * 3


@pytest.fixture
def entry(tmp_path):
    """An entry of the cache whose tensors all hold one number."""
    cache = Cache(tmp_path)

    def image(number, bucket, mask=None, **of):
        shape = (1, 16, bucket.height // 8, bucket.width // 8)
        tensors = {"mean": torch.full(shape, float(number)), "std": torch.full(shape, 0.5)}
        if mask is not None:
            tensors["mask"] = torch.full((1, 1, *shape[2:]), mask)
        path = cache.path("latents", of=number, **of)
        cache.ensure(path, lambda: tensors)
        return ImageEntry(path, Path(f"{number}.png"), "", View(crop_box(100, 100, bucket)))

    def text(number, words=""):
        path = cache.path("texts", of=number, words=words)
        cache.ensure(path, lambda: {name: torch.full(shape, float(number)) for name, shape in TEXT_SHAPES.items()})
        return TextEntry(path, words or f"caption {number}")

    return SimpleNamespace(image=image, text=text)


@pytest.fixture
def items(entry):
    return [
        Item(bucket, (entry.image(number, bucket),), ((entry.text(number),),)) for number, bucket in enumerate(SIZES)
    ]


def batches(items, **changes):
    return Batches(items, **{"batch_size": 2, "seed": 0, "timesteps": Timesteps()} | changes)


def numbers(batch):
    """What its samples' texts hold."""
    return batch.text.sequence_BLD[:, 0, 0].tolist()


def same(one, other):
    pairs = [(one.x0_BCHW, other.x0_BCHW), (one.noise_BCHW, other.noise_BCHW), (one.sigma_B, other.sigma_B)]
    equal = all(torch.equal(a, b) for a, b in [*pairs, *zip(one.text, other.text, strict=True)])
    return equal and (one.items, one.seed) == (other.items, other.seed)


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
    plain, shifted = batches(items, batch_size=1, timesteps=Timesteps(shift="none")), batches(items, batch_size=1)
    for k in range(8):
        tokens = plain[k].x0_BCHW[0, 0].numel() // 4
        k_factor = Timesteps().factor(tokens)
        assert shifted[k].sigma_B.item() == pytest.approx(shift_sigma(plain[k].sigma_B.item(), k_factor))
    uniform = batches(items, timesteps=Timesteps("uniform", shift="none"))[0].sigma_B
    assert not torch.equal(uniform, batches(items, timesteps=Timesteps(shift="none"))[0].sigma_B)


def test_the_loader_begins_anywhere_and_never_ends(items):
    data = batches(items)
    loader = iter(BatchData(data, start=6).train_dataloader())
    for k in range(6, 40):
        assert same(next(loader), data[k])


def test_an_entry_is_read_once_however_often_it_is_used(items):
    data = batches(items, batch_size=1)
    first = [data[k] for k in range(8)]
    for item in items:
        item.latents.unlink()
    assert all(same(data[k], first[k]) for k in range(8))


def test_worker_processes_change_nothing(items):
    data = batches(items, reading=Reading(dropout=0.3, empty=items[0].captions[0][0]))
    loader = iter(BatchData(data, start=3, workers=2).train_dataloader())
    assert all(same(next(loader), data[k]) for k in range(3, 20))


def running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_worker_processes_die_with_their_trainer(items):
    """They inherit its locks: were they to live on, the run would count as running."""
    end, start = os.pipe()
    trainer = os.fork()
    if trainer == 0:
        loader = iter(BatchData(batches(items), start=0, workers=2).train_dataloader())
        next(loader)
        os.write(start, json.dumps([worker.pid for worker in loader._workers]).encode())
        signal.pause()
    workers = json.loads(os.read(end, 1000))
    assert all(running(worker) for worker in workers)
    os.kill(trainer, signal.SIGKILL)
    os.waitpid(trainer, 0)
    deadline = time.monotonic() + 4  # torch's own watch looks every 5 seconds
    while time.monotonic() < deadline and any(running(worker) for worker in workers):
        time.sleep(0.05)
    assert not any(running(worker) for worker in workers)


def test_repeats_are_of_the_epoch(items):
    data = batches([*items[:7], replace(items[7], repeats=3)], batch_size=1)
    assert data.per_epoch == 10
    for epoch in range(2):
        members = Counter(data.members(k)[0] for k in range(10 * epoch, 10 * epoch + 10))
        assert members == dict.fromkeys(range(7), 1) | {7: 3}


def test_each_view_comes_as_often_as_the_others(items, entry):
    views = tuple(entry.image(10 * view, SIZES[0], view=view) for view in range(4))
    data = batches([replace(items[0], views=views)], batch_size=1)
    shown = Counter(round(data[k].x0_BCHW.mean().item() / 10) for k in range(400))
    assert set(shown) == set(range(4))
    assert all(70 < count < 130 for count in shown.values())  # four deviations of 8.7 around 100


def test_each_caption_comes_as_often_as_the_others_however_many_orders_it_has(items, entry):
    captions = ((entry.text(100),), tuple(entry.text(number) for number in (200, 201, 202, 203)))
    data = batches([replace(items[0], captions=captions)], batch_size=1)
    shown = Counter(numbers(data[k])[0] for k in range(400))
    assert 160 < shown[100] < 240
    assert set(shown) == {100, 200, 201, 202, 203}


def test_a_dropped_caption_is_the_embedding_of_the_empty_one_as_often_as_wanted(items, entry):
    empty = entry.text(-1, "nothing")
    data = batches(items, batch_size=1, reading=Reading(0.2, empty))
    shown = [numbers(data[k])[0] for k in range(800)]
    assert 115 < shown.count(-1) < 205  # four deviations of 11.3 around 160
    assert all(number in (-1, data.members(k)[0]) for k, number in enumerate(shown))
    plain = batches(items, batch_size=1)
    assert all(torch.equal(data[k].noise_BCHW, plain[k].noise_BCHW) for k in range(8))
    always = batches(items, reading=Reading(1.0, empty))
    assert {number for k in range(5) for number in numbers(always[k])} == {-1}


def test_the_preservation_reads_the_text_with_the_class_word_of_the_caption_that_was_drawn(items, entry):
    empty = entry.text(-1, "nothing")
    texts = [item.captions[0][0] for item in items]
    neutral = {text.text: entry.text(1000 + number) for number, text in enumerate(texts)} | {"nothing": empty}
    data = batches(items, reading=Reading(0.5, empty, neutral))
    for k in range(20):
        for said, instead in zip(numbers(data[k]), data[k].neutral.sequence_BLD[:, 0, 0].tolist(), strict=True):
            assert instead == (-1 if said == -1 else 1000 + said)


def test_masks_are_raised_to_the_floor_and_a_picture_without_one_is_whole(items, entry):
    masked = Item(SIZES[0], (entry.image(0, SIZES[0], mask=0.25, masked=True),), items[0].captions)
    data = batches([masked, items[1]], batch_size=2, mask_floor=0.2)
    by_item = dict(zip(data[0].items, data[0].mask_B1HW, strict=True))
    assert by_item[0].unique().tolist() == pytest.approx([0.4])
    assert by_item[1].unique().tolist() == [1.0]
    assert batches(items)[0].mask_B1HW is None


def test_the_weight_of_a_regularisation_picture_goes_with_it(items):
    data = batches([*items[:4], replace(items[4], weight=0.25)], batch_size=5)
    assert dict(zip(data[0].items, data[0].weight_B.tolist(), strict=True)) == {0: 1, 1: 1, 2: 1, 3: 1, 4: 0.25}
    assert batches(items)[0].weight_B is None


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 60))
def test_ranks_share_a_batch_in_equal_parts_of_one_size(items, world, batch_size, k):
    ranks = [batches(items, batch_size=batch_size).of_rank(rank, world) for rank in range(world)]
    members = [data.members(k) for data in ranks]
    assert len({len(mine) for mine in members}) == 1
    assert 1 <= len(members[0]) <= batch_size
    assert len({items[n].bucket for mine in members for n in mine}) == 1
    assert len({data.per_epoch for data in ranks}) == 1
    whole = batches(items, batch_size=batch_size * world).members(k)
    assert [n for mine in members for n in mine][: len(whole)] == whole


def test_two_ranks_see_what_one_would_see_with_a_batch_of_both(items):
    whole = batches(items[:4], batch_size=2)
    for k in range(6):
        for rank in range(2):
            mine = batches(items[:4], batch_size=1).of_rank(rank, 2)[k]
            assert mine.items == whole[k].items[rank : rank + 1]
            for name in ("x0_BCHW", "noise_BCHW", "sigma_B"):
                assert torch.equal(getattr(mine, name), getattr(whole[k], name)[rank : rank + 1])
            assert torch.equal(mine.text.sequence_BLD, whole[k].text.sequence_BLD[rank : rank + 1])
