import pytest
import torch
from PIL import Image

from lora_lightning.caption.base import Request, Sampling
from lora_lightning.caption.module import CaptionModule, Item, picture_seed
from lora_lightning.datasets.store import Picture
from lora_lightning.errors import OutOfMemory


class Crowded:
    """The real captioner on a device where only so many pictures fit."""

    def __init__(self, captioner, most):
        self.captioner, self.most, self.sizes = captioner, most, []

    def describe(self, requests, sampling):
        self.sizes.append(len(requests))
        if len(requests) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.captioner.describe(requests, sampling)


def items(count):
    pictures = [Picture(n, f"{n}.png", f"{n}.png", str(n), 8, 8) for n in range(count)]
    return [Item(p, Request(Image.new("RGB", (8, 8), (40 * p.id, 0, 0)), "p", p.id)) for p in pictures]


def module(captioner):
    made = CaptionModule(lambda device: captioner, Sampling(1.0, 1.0, 4))
    made._captioner = captioner
    return made


def test_a_batch_that_does_not_fit_is_halved_and_stays_so(captioner):
    crowded = Crowded(captioner, most=2)
    made = module(crowded)
    results = made.predict_step(items(6), 0)
    assert [result.picture.id for result in results] == list(range(6))
    assert results == module(captioner).predict_step(items(6), 0)
    assert crowded.sizes == [6, 3, 1, 1, 1, 1, 1, 1]
    crowded.sizes.clear()
    made.predict_step(items(2), 1)
    assert crowded.sizes == [1, 1]


def test_one_picture_that_does_not_fit_is_an_error_with_a_way_out(captioner):
    with pytest.raises(OutOfMemory) as caught:
        module(Crowded(captioner, most=0)).predict_step(items(2), 0)
    assert "max_tokens" in caught.value.hint


def test_a_picture_that_cannot_be_read_passes_through_with_its_reason(captioner):
    good, bad = items(2)
    bad = Item(bad.picture, reason="it is damaged")
    first, second = module(captioner).predict_step([bad, good], 0)
    assert (first.text, first.reason) == ("", "it is damaged")
    assert (second.picture, second.reason) == (good.picture, "")


def test_a_picture_has_its_own_seed():
    seeds = {picture_seed(seed, sha) for seed in (0, 1) for sha in ("a" * 64, "b" * 64)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert picture_seed(0, "a" * 64) == picture_seed(0, "a" * 64)
