"""Sample prompts with settings of their own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lora_lightning.datasets.images import open_rgb
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import InputError, RecipeError
from lora_lightning.runs.folder import RunFolder
from lora_lightning.train.prompts import Wanted, parse

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")


def test_settings_are_read_from_the_end_of_a_prompt():
    assert parse("a fox, in snow") == Wanted("a fox, in snow")
    assert parse("a fox --seed 7 --size 768x1024 --steps=30 --guidance 3.5") == Wanted("a fox", 7, 768, 1024, 30, 3.5)
    assert parse("a hut -- in fog -- at dawn --seed 0") == Wanted("a hut -- in fog -- at dawn", seed=0)
    assert parse("--seed 3") == Wanted("", seed=3)
    assert parse('night --reference "my beach.png" --seed 1') == Wanted("night", 1, reference="my beach.png")


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
    "wrong",
    [
        "--neg blurry",
        "--size 100x100",
        "--size 512",
        "--steps 0",
        "--seed -1",
        "--guidance 99",
        "--steps",
        "--reference",
    ],
)
def test_what_cannot_be_is_refused_by_the_recipe(recipe, wrong):
    with pytest.raises(RecipeError) as caught:
        recipe(f"sample.prompts=['a fox {wrong}']")
    assert wrong.split()[0] in caught.value.problems[0].message


def test_each_sample_is_drawn_as_its_prompt_says(train, recipe, home):
    """And without a reference where the model edits no picture."""
    prompts = "['TOK --size 48x80 --seed 5 --steps 1', 'TOK, a dog --reference dusk.png']"
    outcome = train(recipe(f"sample.prompts={prompts}", "train.steps=1", "train.sample_every=1"))
    own, common = (Path(outcome.made["run"]) / "samples" / f"0000001-{place}.png" for place in (0, 1))
    with Image.open(own) as picture:
        assert picture.size == (48, 80)
        assert (picture.text["prompt"], picture.text["seed"], picture.text["steps"]) == ("TOK", "5", "1")
    with Image.open(common) as picture:
        assert picture.size == (64, 64)
        assert (picture.text["seed"], picture.text["steps"]) == ("43", "2")
        assert "reference" not in picture.text
    assert "edits no picture" in RunFolder(home.run("short")).log_tail()


@pytest.fixture
def edits(home):
    """Each picture of the dataset is what became of its negative."""
    dataset = Dataset.open(home.dataset("pictures"))
    (dataset.folder / "references").mkdir()
    for picture in dataset.pictures():
        negative = ImageOps.invert(open_rgb(dataset.path(picture)))
        negative.save(dataset.folder / "references" / f"{Path(picture.name).stem}.png")
    return dataset


def by_diffusers(folder, prompt, reference, size, seed):
    stock = FluxKontextPipeline.from_pretrained(folder, dtype=torch.float32)
    stock.set_progress_bar_config(disable=True)
    width, height = size
    return stock(
        image=reference.resize(size, Image.Resampling.LANCZOS),
        prompt=prompt,
        width=width,
        height=height,
        max_area=width * height,
        _auto_resize=False,
        num_inference_steps=2,
        guidance_scale=4.0,
        max_sequence_length=32,
        generator=torch.Generator().manual_seed(seed),
    ).images[0]


def test_samples_of_edits_are_the_stock_pipelines_of_the_references(train, recipe, edits, tiny_kontext, tmp_path):
    """The first reference where none is named, a named one, and any file; the shape is the reference's."""
    Image.effect_noise((128, 64), 90).convert("RGB").save(tmp_path / "my file.png")
    prompts = ["TOK", "TOK --reference coffee.png", f'TOK --reference "{tmp_path / "my file.png"}" --size 64x64']
    wanted = ("dataset.references=true", f"model.base={tiny_kontext}", "train.steps=1", "train.sample_every=1")
    outcome = train(recipe(*wanted, f"sample.prompts={prompts}"))
    samples = [Path(outcome.made["run"]) / "samples" / f"0000000-{place}.png" for place in range(3)]
    names = ("astronaut.png", "coffee.png", "my file.png")
    for place, (path, size) in enumerate(zip(samples, [(64, 64), (80, 48), (64, 64)], strict=True)):
        with Image.open(path) as picture:
            assert picture.text["reference"] == names[place]
            assert picture.size == size
            if place == 0:
                shown = open_rgb(edits.folder / "references" / "astronaut.png")
                stock = by_diffusers(tiny_kontext, "TOK", shown, size, 42)
                assert np.array_equal(np.asarray(picture), np.asarray(stock))
    with Image.open(outcome.made["sheet"]) as sheet:
        assert sheet.width > 3 * 384  # reference | base | with LoRA

    with pytest.raises(InputError, match="there is no reference dusk"):
        train(recipe(*wanted, "name=other", "sample.prompts=['TOK --reference dusk.png']"))
