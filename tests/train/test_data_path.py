"""The recipe's fields of data and objective, each by what it does in a real training."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import DatasetError, InputError, RecipeError
from lora_lightning.models.base import open_family
from lora_lightning.models.lora_files import diffusers as lora_file
from lora_lightning.runs.folder import RunFolder
from lora_lightning.train.module import LoraTraining
from lora_lightning.train.objective import Objective

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")


@pytest.fixture
def seen(monkeypatch):
    """Every batch that was trained on, in order, and the module."""
    batches = []
    original = LoraTraining.training_step

    def training_step(module, batch, batch_idx):
        batches.append((module, batch))
        return original(module, batch, batch_idx)

    monkeypatch.setattr(LoraTraining, "training_step", training_step)
    return batches


@pytest.fixture
def short(recipe):
    """A recipe without pictures to draw."""
    return lambda *overrides: recipe("sample.prompts=[]", *overrides)


@pytest.fixture
def embed(tiny_flux):
    family = open_family(str(tiny_flux), device=torch.device("cpu"), dtype=torch.float32)
    return lambda text: family.encode_text([text]).sequence_BLD


def weights(outcome):
    return lora_file.read(Path(outcome.made["lora"])).tensors


def assert_same(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


EVERYTHING = (
    "dataset.resolutions=[48,64]",
    "dataset.repeats=2",
    "dataset.flip=true",
    "dataset.crops=2",
    "dataset.caption_dropout=0.3",
    "dataset.shuffle_tags=2",
    "dataset.masks=folder",
    "dataset.mask_floor=0.1",
    "dataset.regularisation=class",
    "dataset.regularisation_weight=0.5",
    "train.timesteps=style",
    "train.loss=huber",
    "train.huber_schedule=exponential",
    "train.loss_weighting=cosmap",
    "train.preservation=0.5",
    "train.class_word=thing",
    "train.batch_size=2",
)


@pytest.fixture
def rich(home, photos):
    """The dataset with a mask, and a regularisation set of two pictures."""
    dataset = Dataset.open(home.dataset("pictures"))
    (dataset.folder / "masks").mkdir()
    Image.linear_gradient("L").resize((451, 300)).save(dataset.folder / "masks" / "chelsea.png")
    import_sources(home, "class", [photo for photo in photos if photo.stem in ("coins", "rocket")])


def test_everything_at_once_is_the_same_with_worker_processes_and_after_damage_to_the_cache(
    rich, train, short, home, seen, monkeypatch
):
    straight = train(short(*EVERYTHING))
    assert {bool(batch.neutral) and batch.weight_B is not None for _, batch in seen} == {True}
    assert any(batch.mask_B1HW is not None for _, batch in seen)
    parallel = train(short("name=parallel", "dataset.workers=2", *EVERYTHING))
    assert_same(straight, parallel)

    recorded = LoraTraining.training_step

    def damage(module, batch, batch_idx):
        if batch_idx == 1:
            for entry in home.cache.rglob("*.safetensors"):
                entry.write_bytes(entry.read_bytes()[:-1])
        return recorded(module, batch, batch_idx)

    monkeypatch.setattr(LoraTraining, "training_step", damage)
    mended = train(short("name=mended", *EVERYTHING))
    assert_same(straight, mended)
    assert "it is made again on the CPU" in RunFolder(home.run("mended")).log_tail()


def test_a_dropped_caption_is_the_true_empty_one(train, short, embed, seen):
    train(short("dataset.caption_dropout=0.5", "train.steps=40", "train.checkpoint_every=40"))
    dropped = [torch.equal(batch.text.sequence_BLD, embed("")) for _, batch in seen]
    assert 7 <= sum(dropped) <= 33  # four deviations of 3.2 around 20
    kept = [batch.text.sequence_BLD for (_, batch), gone in zip(seen, dropped, strict=True) if not gone]
    captions = [embed(caption) for caption in ("TOK", "TOK, a cat", "TOK, a cup of coffee")]
    assert all(any(torch.equal(text, caption) for caption in captions) for text in kept)


def test_tags_come_in_other_orders_with_the_trigger_first(train, short, home, embed, seen):
    dataset = Dataset.open(home.dataset("pictures"))
    for picture in dataset.pictures():
        dataset.write_caption(picture.id, "TOK, red, blue, green", author="human")
    train(short("dataset.shuffle_tags=5", "train.steps=40", "train.checkpoint_every=40"))
    orders = [f"TOK, {a}, {b}, {c}" for a, b, c in (
        ("red", "blue", "green"), ("red", "green", "blue"), ("blue", "red", "green"),
        ("blue", "green", "red"), ("green", "red", "blue"), ("green", "blue", "red"),
    )]  # fmt: skip
    embedded = {order: embed(order) for order in orders}
    shown = Counter(
        next(order for order, text in embedded.items() if torch.equal(text, batch.text.sequence_BLD))
        for _, batch in seen
    )
    assert set(shown) == set(orders)


def test_mirrored_pictures_come_half_of_the_time(train, short, home, seen):
    train(short("dataset.flip=true", "train.steps=40", "train.checkpoint_every=40"))
    plain = {}
    for _, batch in seen:
        plain.setdefault(batch.items[0], []).append(batch.x0_BCHW)
    for shown in plain.values():
        near = [(each - shown[0]).abs().mean() for each in shown]
        same = sum(distance < 0.5 * max(near) for distance in near)
        assert 0 < same < len(shown)


def test_a_regularisation_set_is_trained_on_without_the_trigger_and_weighs_what_it_should(
    rich, train, short, home, embed, seen
):
    train(
        short(
            "dataset.regularisation=class",
            "dataset.regularisation_weight=0.25",
            "dataset.regularisation_repeats=2",
            "train.steps=7",
            "train.checkpoint_every=7",
        )
    )
    assert Counter(batch.weight_B.item() for _, batch in seen) == {1.0: 3, 0.25: 4}
    for _, batch in seen:
        assert torch.equal(batch.text.sequence_BLD, embed("")) == (batch.weight_B.item() == 0.25)
    rows = (home.run("short") / "regularisation.jsonl").read_text().splitlines()
    assert [json.loads(row)["caption"] for row in rows] == ["", ""]


def test_several_datasets_come_as_often_and_weigh_as_much_as_they_should(rich, train, short, home, embed, seen, photos):
    """In an epoch of 3 x 1 + 2 x 2 + 1 x 3 samples; all are taught, and all may be held out."""
    import_sources(home, "third", [photo for photo in photos if photo.stem == "moon"])
    further = "dataset.further=['class x 2 at 0.25', third x 3]"
    outcome = train(short(further, "train.steps=10", "train.checkpoint_every=10"))
    assert Counter(batch.weight_B.item() for _, batch in seen) == {1.0: 3 + 3, 0.25: 4}
    untold = torch.stack([embed("TOK"), embed("TOK, a cup of coffee"), embed("TOK, a cat")])
    assert all((untold == batch.text.sequence_BLD).flatten(1).all(1).any() for _, batch in seen)
    seen_of = {json.loads(row)["file"]: json.loads(row)["seen"] for row in rows_of(home, "pictures.jsonl")}
    assert sorted(seen_of.values()) == [1, 1, 1, 2, 2, 3]
    assert outcome.report["pictures"] == 6
    assert [len(rows_of(home, f"dataset{which}.jsonl")) for which in ("", "-2", "-3")] == [3, 2, 1]

    seen.clear()
    parted = train(short(further, "name=parted", "dataset.validation_share=0.5", "train.steps=2"))
    held = json.loads((home.run("parted") / "held_out.json").read_text())
    assert (len(held), parted.report["pictures"]) == (3, 3)
    with pytest.raises(RecipeError, match="'pictures' is there twice"):
        short("dataset.further=[pictures]")


def rows_of(home, name):
    return (home.run("short") / name).read_text().splitlines()


def test_preservation_reads_the_class_word_and_needs_a_trigger(train, short, embed, seen):
    train(short("train.preservation=1", "train.class_word=thing", "train.steps=3"))
    said = {"TOK": "thing", "TOK, a cat": "thing, a cat", "TOK, a cup of coffee": "thing, a cup of coffee"}
    for module, batch in seen:
        assert module.preservation == 1
        instead = next(said[text] for text in said if torch.equal(embed(text), batch.text.sequence_BLD))
        assert torch.equal(batch.neutral.sequence_BLD, embed(instead))
    with pytest.raises(InputError, match="needs a trigger"):
        train(short("name=other", "trigger=''", "train.preservation=1"))


def test_the_objective_and_the_sampler_of_the_recipe_are_used(train, short, seen, home):
    style = ("train.timesteps=style", "train.shift=none")
    train(short(*style, "train.loss=huber", "train.huber_delta=0.3", "train.loss_weighting=cosmap"))
    module, first = seen[0]
    assert module.objective == Objective("huber", 0.3, "constant", "cosmap")
    assert all(batch.sigma_B.item() > 0.5 for _, batch in seen)
    rows = RunFolder(home.run("short")).metrics()
    fresh = train(short("name=fresh", *style, "train.steps=1"))
    assert fresh.report["final_loss"] != pytest.approx(rows[0]["loss"], rel=1e-3)
    assert torch.equal(seen[-1][1].sigma_B, first.sigma_B)


def test_enlarging_gives_every_picture_every_resolution(train, short, home):
    small = train(short("dataset.resolutions=[64,640]"))
    assert small.report["buckets"] == {"64x64": 1, "80x48": 2}
    assert "3 of 3 pictures are too small for 640 pixels" in RunFolder(home.run("short")).log_tail()
    large = train(short("name=large", "dataset.resolutions=[64,96]", "dataset.enlarge=true", "train.steps=1"))
    assert sum(large.report["buckets"].values()) == 6
    assert "too small" not in RunFolder(home.run("large")).log_tail()


def test_the_trigger_fills_its_mark_in_the_prompts_too(train, recipe, home):
    train(recipe("sample.prompts=['[trigger], a dog']", "train.sample_every=3", "train.steps=3"))
    with Image.open(home.run("short") / "samples" / "0000003-0.png") as picture:
        assert picture.text["prompt"] == "TOK, a dog"


def test_a_reference_is_seen_beside_the_noise_and_every_picture_needs_one(train, short, home, seen, tiny_flux, photos):
    dataset = Dataset.open(home.dataset("pictures"))
    (dataset.folder / "references").mkdir()
    with pytest.raises(DatasetError, match=r"3 of 3 pictures have no reference .* such as astronaut.png"):
        train(short("name=bare", "dataset.references=true"))
    for picture in dataset.pictures():
        with Image.open(dataset.path(picture)) as image:
            image.convert("L").convert("RGB").save(dataset.folder / "references" / f"{Path(picture.name).stem}.webp")
    plain = train(short("train.learning_rate=0.02"))
    edits = train(short("name=edits", "train.learning_rate=0.02", "dataset.references=true", "dataset.flip=true"))
    assert any(not torch.equal(weights(plain)[key], weights(edits)[key]) for key in weights(plain))
    family = open_family(str(tiny_flux), device=torch.device("cpu"), dtype=torch.float32)
    for module, batch in seen[6:]:
        assert batch.reference_BCHW.shape == batch.x0_BCHW.shape
        alone = batch._replace(reference_BCHW=None)
        with torch.no_grad():
            assert abs(module.losses(batch).mean - module.losses(alone).mean) > 1e-6
    gray = Image.open(dataset.folder / "references" / "astronaut.webp").convert("RGB").resize((64, 64), 1)
    upright = torch.from_numpy(np.array(gray)).permute(2, 0, 1)[None].float() / 127.5 - 1
    wanted = [family.encode_image(pixels).mean_BCHW for pixels in (upright, upright.flip(-1))]
    squares = [batch.reference_BCHW for _, batch in seen[6:] if batch.reference_BCHW.shape[-1] == 8]
    assert squares
    assert all(any(torch.equal(square, each) for each in wanted) for square in squares)
