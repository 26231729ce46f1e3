"""Sample prompts with settings of their own."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lora_lightning.errors import RecipeError
from lora_lightning.train.prompts import Wanted, parse

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")


def test_settings_are_read_from_the_end_of_a_prompt():
    assert parse("a fox, in snow") == Wanted("a fox, in snow")
    assert parse("a fox --seed 7 --size 768x1024 --steps=30 --guidance 3.5") == Wanted("a fox", 7, 768, 1024, 30, 3.5)
    assert parse("a hut -- in fog -- at dawn --seed 0") == Wanted("a hut -- in fog -- at dawn", seed=0)
    assert parse("--seed 3") == Wanted("", seed=3)


@given(
    st.text("abc ,-", max_size=20).map(str.strip).filter(lambda text: "--" not in text),
    st.integers(0, 2**31),
    st.integers(2, 256),
    st.integers(1, 200),
)
def test_what_is_written_is_read(prompt, seed, sixteenths, steps):
    side = 16 * sixteenths
    written = f"{prompt} --seed {seed} --size {side}x{side} --steps {steps} --guidance 0"
    assert parse(written) == Wanted(prompt, seed, side, side, steps, 0.0)


@pytest.mark.parametrize(
    "wrong", ["--neg blurry", "--size 100x100", "--size 512", "--steps 0", "--seed -1", "--guidance 99", "--steps"]
)
def test_what_cannot_be_is_refused_by_the_recipe(recipe, wrong):
    with pytest.raises(RecipeError) as caught:
        recipe(f"sample.prompts=['a fox {wrong}']")
    assert wrong.split()[0] in caught.value.problems[0].message


def test_each_sample_is_drawn_as_its_prompt_says(train, recipe):
    prompts = "['TOK --size 48x80 --seed 5 --steps 1', 'TOK, a dog']"
    outcome = train(recipe(f"sample.prompts={prompts}", "train.steps=1", "train.sample_every=1"))
    own, common = (Path(outcome.made["run"]) / "samples" / f"0000001-{place}.png" for place in (0, 1))
    with Image.open(own) as picture:
        assert picture.size == (48, 80)
        assert (picture.text["prompt"], picture.text["seed"], picture.text["steps"]) == ("TOK", "5", "1")
    with Image.open(common) as picture:
        assert picture.size == (64, 64)
        assert (picture.text["seed"], picture.text["steps"]) == ("43", "2")
