"""Variations of a dataset's pictures: stock img2img, laid aside until a person has looked."""

import numpy as np
import pytest
import torch
from diffusers import FluxImg2ImgPipeline
from PIL import Image

from lora_lightning import recipe
from lora_lightning.check import check
from lora_lightning.datasets import variations
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import InputError, RecipeError, Stopped
from lora_lightning.generate import job, vary
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.job import perform, reserve

AREA = {"width": 64, "height": 64, "steps": 4, "guidance": 4.0, "seed": 11, "strength": 0.5}


@pytest.fixture
def dataset(workspace, photos):
    """A square photograph with a caption by a person, a wide one without."""
    import_sources(workspace, "mine", [photos[0], photos[5]])
    made = Dataset.open(workspace.dataset("mine"))
    made.write_caption(1, "an astronaut <smiles>", author="human")
    return made


@pytest.fixture
def make_recipe(tiny_flux):
    def make(base=tiny_flux, **changes):
        return recipe.parse(
            {
                "name": "pictures",
                "trigger": "MYSTYLE",
                "model": {"base": str(base)},
                "train": {"precision": "32-true"},
                "generate": AREA | {"vary": "mine"} | changes,
            }
        )

    return make


@pytest.fixture
def generate(workspace):
    def start(made, run=None):
        folder = run or reserve(workspace, "generate", made.name, made.to_yaml())
        return perform(workspace, folder, lambda reporter: job.run(made, workspace, reporter), needs_device=False)

    return start


def stock(folder, path, prompt, size, seed, strength):
    """What diffusers draws, called as anyone would call it."""
    pipeline = FluxImg2ImgPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    with Image.open(path) as image:
        start = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    generator = torch.Generator("cpu").manual_seed(seed)
    drawn = pipeline(
        prompt, image=start, strength=strength, width=size[0], height=size[1], num_inference_steps=4,
        guidance_scale=4.0, max_sequence_length=32, generator=generator,
    )  # fmt: skip
    return np.asarray(drawn.images[0])


def pixels(path):
    return np.asarray(Image.open(path))


def test_variations_are_those_of_diffusers_in_the_shape_of_their_pictures(generate, make_recipe, dataset, tiny_flux):
    square, other, wide = generate(make_recipe(images_per_prompt=2)).made["images"][:3]
    first, second = dataset.pictures()
    for path, seed in ((square, 11), (other, 12)):
        expected = stock(tiny_flux, dataset.path(first), "an astronaut <smiles>", (64, 64), seed, 0.5)
        assert (pixels(path) == expected).all()
    assert (pixels(square) != pixels(other)).any()
    assert pixels(wide).shape == (48, 80, 3)
    with Image.open(wide) as image:
        assert (image.info["prompt"], image.info["strength"]) == ("MYSTYLE", "0.5")
        assert image.info["reference"] == second.file


def test_the_strength_decides_how_much_of_the_picture_stays(generate, make_recipe, dataset, tiny_flux):
    weak, strong = (
        pixels(generate(make_recipe(vary_pictures="1", strength=strength)).made["images"][0])
        for strength in (0.25, 1.0)
    )
    other = stock(tiny_flux, dataset.path(dataset.pictures()[1]), "an astronaut <smiles>", (64, 64), 11, 1.0)
    assert (strong == other).all()  # the whole way, nothing of the picture is left
    assert (weak != other).any()


def test_prompts_stand_around_the_caption_and_are_what_a_variation_is_called(generate, make_recipe, dataset):
    generate(make_recipe(prompts=["{caption}, at night", "a fox"], vary_pictures="1", steps=1))
    waiting = variations.listed(dataset, "waiting")
    assert [each.caption for each in waiting] == ["a fox", "an astronaut <smiles>, at night"]
    assert {each.origin for each in waiting} == {1}
    assert waiting[0].details["seed"] == "11"
    assert len(dataset.pictures(include_aside=True)) == 2


def test_what_was_drawn_before_a_kill_still_waits_though_the_dataset_changed(
    generate, make_recipe, dataset, workspace, photos, monkeypatch
):
    made = make_recipe(steps=1)
    monkeypatch.setattr(vary.variations, "lay_aside", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(Stopped):
        generate(made)
    monkeypatch.undo()
    import_sources(workspace, "mine", [photos[1]])  # its name comes between the other two
    dataset.write_caption(1, "changed since", author="human")
    run = RunFolder(workspace.run("pictures.generate"))
    (first,) = run.samples.iterdir()
    drawn = first.read_bytes()
    generate(made, run=run)
    assert first.read_bytes() == drawn
    waiting = {each.origin: each.caption for each in variations.listed(dataset, "waiting")}
    assert waiting == {1: "an astronaut <smiles>", 2: "MYSTYLE", 3: "MYSTYLE"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vary": "gone"}, "there is no dataset 'gone'"),
        ({"vary_pictures": "9"}, "generate.vary_pictures: the dataset uses no picture number 9"),
        ({"vary_pictures": "tokens>"}, "the filter has a mistake"),
        ({"vary_pictures": "zebra"}, "no picture of 'mine' is chosen"),
    ],
)
def test_what_cannot_be_varied_is_named(generate, make_recipe, dataset, changes, says):
    with pytest.raises(RecipeError, match=says):
        generate(make_recipe(**changes))


def test_a_model_that_edits_is_refused(generate, make_recipe, dataset, tiny_kontext):
    with pytest.raises(InputError, match="varies no picture"):
        generate(make_recipe(base=tiny_kontext))


@pytest.mark.parametrize("field", [{"strength": 0.3}, {"vary_pictures": "1"}, {"vary": "mine", "reference": "a.png"}])
def test_a_field_that_nobody_would_read_is_refused(field):
    with pytest.raises(RecipeError, match="applies only with vary"):
        recipe.parse({"name": "pictures", "generate": field})


def test_the_preflight_looks_for_the_dataset(make_recipe, dataset, workspace):
    assert "generate.prompts" not in {each.where for each in check(make_recipe(), workspace, "generate").blockers}
    for changes, where in (({"vary": "gone"}, "generate.vary"), ({"vary_pictures": "zebra"}, "generate.vary_pictures")):
        assert where in {each.where for each in check(make_recipe(**changes), workspace, "generate").blockers}
