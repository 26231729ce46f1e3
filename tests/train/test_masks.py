"""Masks: found beside the pictures or in their transparency, frozen with them, and seen as the latents see them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lora_lightning.datasets.buckets import Bucket, crop_box
from lora_lightning.datasets.crops import View
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import DatasetError
from lora_lightning.train.examples import freeze
from lora_lightning.train.masks import latent_mask


@pytest.fixture
def dataset(home):
    """Three photographs, 512 x 512, 451 x 300 and 600 x 400; the cat's left half is masked out."""
    dataset = Dataset.open(home.dataset("pictures"))
    (dataset.folder / "masks").mkdir()
    mask = Image.new("L", (451, 300), 255)
    mask.paste(0, (0, 0, 225, 300))
    mask.save(dataset.folder / "masks" / "chelsea.png")
    return dataset


def test_a_mask_belongs_to_the_picture_of_its_name(dataset, tmp_path, caplog):
    examples = freeze(dataset, "TOK", tmp_path / "dataset.jsonl", mask_kind="folder")
    names = {picture.file: picture.name for picture in dataset.pictures()}
    assert {names[example.file]: example.mask for example in examples} == {
        "astronaut.png": "",
        "chelsea.png": "masks/chelsea.png",
        "coffee.png": "",
    }
    assert "2 of 3 pictures have no mask and are learned whole" in caplog.messages
    assert freeze(dataset, "TOK", tmp_path / "dataset.jsonl", mask_kind="folder") == examples
    assert {example.mask for example in freeze(dataset, "TOK", tmp_path / "plain.jsonl")} == {""}


def test_a_mask_that_changes_under_a_run_is_named(dataset, tmp_path):
    freeze(dataset, "TOK", tmp_path / "dataset.jsonl", mask_kind="folder")
    Image.new("L", (451, 300), 9).save(dataset.folder / "masks" / "chelsea.png")
    with pytest.raises(DatasetError, match=r"chelsea.png .* was changed"):
        freeze(dataset, "TOK", tmp_path / "dataset.jsonl", mask_kind="folder")


def test_a_mask_of_another_shape_is_refused(dataset, tmp_path):
    Image.new("L", (300, 300)).save(dataset.folder / "masks" / "chelsea.png")
    with pytest.raises(DatasetError, match=r"masks/chelsea.png is 300 x 300, its picture .* 451 x 300"):
        freeze(dataset, "TOK", tmp_path / "dataset.jsonl", mask_kind="folder")


def test_latents_see_the_mean_of_what_they_cover(dataset):
    path, bucket = dataset.folder / "masks" / "chelsea.png", Bucket(80, 48)
    view = View(crop_box(451, 300, bucket))
    mask = latent_mask(path, view, 6, 10, alpha=False)
    assert mask.shape == (1, 1, 6, 10)
    assert torch.equal(mask[..., :4], torch.zeros(1, 1, 6, 4))
    assert torch.equal(mask[..., 5:], torch.ones(1, 1, 6, 5))
    assert mask.mean().item() == pytest.approx(226 / 451, abs=0.01)
    assert torch.equal(latent_mask(path, View(view.crop, True), 6, 10, alpha=False), mask.flip(-1))


def test_a_mask_follows_the_cut(dataset):
    path, bucket = dataset.folder / "masks" / "chelsea.png", Bucket(32, 32)
    left, right = (View(crop_box(451, 300, bucket, (x, 0.5))) for x in (0.0, 1.0))
    assert latent_mask(path, left, 4, 4, alpha=False).mean() < 0.3 < 0.7
    assert latent_mask(path, right, 4, 4, alpha=False).mean() > 0.7


@pytest.mark.parametrize("orientation", [1, 6])
def test_transparency_is_a_mask_turned_as_its_picture(workspace, tmp_path, photos, orientation):
    coffee = Image.open(next(photo for photo in photos if photo.stem == "coffee")).convert("RGBA")
    alpha = np.zeros((400, 600), np.uint8)
    alpha[:200] = 255
    coffee.putalpha(Image.fromarray(alpha))
    exif = Image.Exif()
    exif[0x0112] = orientation
    coffee.save(tmp_path / "cup.png", exif=exif)
    import_sources(workspace, "cups", [tmp_path / "cup.png", photos[0]])
    dataset = Dataset.open(workspace.dataset("cups"))
    examples = freeze(dataset, "", tmp_path / "dataset.jsonl", mask_kind="alpha")
    cup, whole = sorted(examples, key=lambda example: example.mask == "")
    assert (cup.mask, whole.mask) == (f"images/{cup.file}", "")
    view = View(crop_box(cup.width, cup.height, Bucket(64, 64)))
    mask = latent_mask(dataset.folder / cup.mask, view, 8, 8, alpha=True)[0, 0]
    shown, hidden = (mask[:, 4:], mask[:, :4]) if orientation == 6 else (mask[:4], mask[4:])
    assert torch.equal(shown, torch.ones_like(shown))
    assert torch.equal(hidden, torch.zeros_like(hidden))
    assert Path(dataset.folder / cup.mask).is_file()
