"""The world's words and scenes."""

import random

import pytest

from lora_lightning.demo.world import captions, concepts
from lora_lightning.demo.world.scene import BACKGROUNDS, LARGE, PLACES, Sampler, base_rows

WORDS = [word for _, word in concepts.wanted()]


@pytest.fixture
def sampler():
    return Sampler(len(WORDS), [[True] * len(WORDS)] * len(concepts.STYLES), base_rows())


def test_there_are_at_least_400_concepts_with_their_own_names():
    assert len(WORDS) == len(set(WORDS)) >= 400


def test_withheld_pairs_are_fixed_and_never_sampled(sampler):
    withheld = concepts.withheld_pairs(len(WORDS))
    assert len(withheld) == 40
    assert withheld == concepts.withheld_pairs(len(WORDS))
    draw = random.Random(0)
    scenes = [sampler.scene(draw) for _ in range(5000)]
    assert not {(thing.drawing, scene.style) for scene in scenes for thing in scene.things} & withheld


def test_every_answer_names_what_is_there(sampler):
    draw = random.Random(1)
    for _ in range(300):
        scene = sampler.scene(draw)
        noun = captions.noun(scene, WORDS)
        for kind in captions.KINDS:
            text = captions.answer(scene, WORDS, kind).lower()
            assert noun.removeprefix("an ").removeprefix("a ") in text
        assert BACKGROUNDS[scene.background] in captions.answer(scene, WORDS, "detailed")
        if len(scene.things) == 1 and scene.place != LARGE:
            assert PLACES[scene.place] in captions.answer(scene, WORDS, "detailed")


@pytest.mark.parametrize(
    ("word", "phrase"),
    [
        ("red apple", "a red apple"),
        ("egg", "an egg"),
        ("unicorn", "a unicorn"),
        ("scissors", "scissors"),
        ("bus", "a bus"),
        ("broccoli", "broccoli"),
    ],
)
def test_articles(word, phrase):
    assert captions.article(word) == phrase
