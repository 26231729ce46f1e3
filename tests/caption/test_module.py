from dataclasses import replace

import pytest
import torch
from PIL import Image

from lora_lightning.caption.base import Answer, Request, Sampling
from lora_lightning.caption.module import LOOPED, CaptionModule, Tools
from lora_lightning.caption.plan import Item, Plan, picture_seed
from lora_lightning.caption.streams import Batches
from lora_lightning.datasets.store import Picture
from lora_lightning.errors import OutOfMemory
from tests.caption.conftest import described

WARM = Sampling(1.0, 1.0, 4)


class Crowded:
    """The real captioner on a device where only so many pictures fit: in rows, or with `batches` by the batch."""

    def __init__(self, captioner, most):
        self.captioner, self.most, self.sizes = captioner, most, []

    def stream(self, size):
        self.sizes.append(size)
        stream = self.captioner.stream(size)
        step = stream.step

        def crowded_step():
            if len(stream.keys) > self.most and size > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return step()

        stream.step = crowded_step
        return stream


class CrowdedBatches:
    """The real captioner as one that describes whole batches."""

    def __init__(self, captioner, most):
        self.captioner, self.most, self.sizes = captioner, most, []

    def describe(self, requests):
        self.sizes.append(len(requests))
        if len(requests) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return described(self.captioner, requests)


class Parrot:
    """Answers with its prompt, and runs in circles where that says so; keeps what it was asked."""

    def __init__(self, loops=0):
        self.loops, self.asked = loops, []

    def describe(self, requests):
        self.asked += requests
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        if "loop" in request.prompt and self.loops:
            self.loops -= 1
            return Answer("la la la", "looped")
        return Answer(f" {request.prompt}\n")


def items(count):
    pictures = [Picture(n, f"{n}.png", f"{n}.png", str(n), 8, 8) for n in range(count)]
    return [Item(p, Image.new("RGB", (8, 8), (40 * p.id, 0, 0))) for p in pictures]


def results(captioner, todo, size=2, plan=None, tagger=None):
    """What lands when all pictures come as one batch."""
    landed = []
    made = CaptionModule(lambda device: None, plan or Plan(("p",), WARM), size, landed.extend)
    made.use(Tools(captioner, tagger))
    made.describe(todo, last=True)
    made.teardown("predict")
    return {result.picture.id: (result.text, result.reason) for result in landed}


@pytest.mark.parametrize("crowd", [Crowded, CrowdedBatches])
def test_what_does_not_fit_is_halved_until_it_does(captioner, crowd):
    crowded = crowd(captioner, most=2)
    assert results(crowded, items(6), size=6) == results(captioner, items(6))
    assert crowded.sizes == {Crowded: [6, 3, 1], CrowdedBatches: [6, 3, 1, 1, 1, 1, 1, 1]}[crowd]


@pytest.mark.parametrize("crowd", [Crowded, CrowdedBatches])
def test_one_picture_that_does_not_fit_is_an_error_with_a_way_out(captioner, crowd):
    with pytest.raises(OutOfMemory) as caught:
        results(crowd(captioner, most=0), items(2))
    assert "max_tokens" in caught.value.hint


def test_a_picture_that_cannot_be_read_passes_through_with_its_reason(captioner):
    good, bad = items(2)
    bad = Item(bad.picture, reason="it is damaged")
    found = results(captioner, [bad, good])
    assert found[bad.picture.id] == ("", "it is damaged")
    assert found[good.picture.id][1] == ""


def test_batches_hand_over_to_each_other_and_nothing_is_lost(captioner):
    landed, todo = [], items(5)
    made = CaptionModule(lambda device: None, Plan(("p",), WARM), 2, landed.extend)
    made.use(Tools(captioner))
    made.describe(todo[:2], last=False)
    made.describe(todo[2:4], last=False)
    assert len(landed) < 4  # the last of them are still being written
    made.describe(todo[4:], last=True)
    made.teardown("predict")
    assert {r.picture.id: (r.text, r.reason) for r in landed} == results(captioner, todo)


def test_a_caption_that_loops_is_asked_for_again_with_other_seeds():
    parrot = Parrot(loops=2)
    plan = Plan(("say loop",), Sampling(0.0), rerolls=2)
    assert results(parrot, items(1), plan=plan) == {0: ("say loop", "")}
    assert len({request.seed for request in parrot.asked}) == 3
    assert [request.sampling.temperature for request in parrot.asked] == [0.0, 0.4, 0.4]


def test_a_caption_that_loops_every_time_is_a_failure():
    parrot = Parrot(loops=3)
    assert results(parrot, items(1), plan=Plan(("say loop",), WARM, rerolls=2)) == {0: ("", LOOPED)}
    assert len(parrot.asked) == 3


def test_a_real_loop_is_cut_in_its_row_while_the_others_go_on(captioner):
    image = Image.new("RGB", (64, 64), (200, 3, 3))
    asked = [Request(image, "Tags?", 0, Sampling(0.0, 1.0, 300)), Request(image, "Tags?", 7, Sampling(1.5, 1.0, 40))]
    looping, free = described(captioner, asked, size=2)
    assert looping.end == "looped"
    assert free == described(captioner, [asked[1]])[0]
    assert free.end != "looped"


def test_answers_of_several_prompts_are_joined_in_their_order():
    plan = Plan(("one.", "two."), WARM, prefix="OHWX, ", suffix=", oil")
    parrot = Parrot()
    assert results(parrot, items(2), plan=plan) == dict.fromkeys((0, 1), ("OHWX, one. two., oil", ""))
    assert len({request.seed for request in parrot.asked}) == 4


def test_one_of_several_prompts_is_drawn_by_the_pictures_seed():
    plan = Plan(("one", "two"), WARM, draw=True)
    first = results(Parrot(), items(20), plan=plan)
    assert {text for text, _ in first.values()} == {"one", "two"}
    assert results(Parrot(), items(20)[::-1], size=7, plan=plan) == first
    assert results(Parrot(), items(20), plan=replace(plan, seed=1)) != first


def test_tags_take_their_place_in_the_prompt():
    class Tagger:
        def describe(self, requests):
            return [Answer(f"red {request.image.getpixel((0, 0))[0]}") for request in requests]

    plan = Plan(("Tags: {tags}. Describe.",), WARM)
    assert results(Parrot(), items(2), plan=plan, tagger=Tagger()) == {
        0: ("Tags: red 0. Describe.", ""),
        1: ("Tags: red 40. Describe.", ""),
    }


def test_requests_that_sample_differently_take_turns():
    class Strict(Parrot):
        def describe(self, requests):
            assert len({request.sampling for request in requests}) == 1
            return super().describe(requests)

    stream = Batches(Strict(), 3)
    image = Image.new("RGB", (8, 8))
    for key, temperature in enumerate((0.0, 1.0, 0.0)):
        stream.put(key, Request(image, str(key), 0, Sampling(temperature)))
    assert stream.free == 0
    assert [told.key for told in stream.step()] == [0, 2]
    assert [told.key for told in stream.step()] == [1]


def test_a_picture_has_its_own_seed():
    seeds = {picture_seed(seed, sha, place) for seed in (0, 1) for sha in ("a" * 64, "b" * 64) for place in (0, 1)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert picture_seed(0, "a" * 64) == picture_seed(0, "a" * 64)
