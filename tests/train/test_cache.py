"""The cache: never stale, never damaged, and the same as no cache at all."""

import shutil

import pytest
import torch

from lora_lightning.datasets.buckets import Bucket, crop_box
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import JobError, Stopped
from lora_lightning.models.base import Encoder, open_family
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.reporter import Reporter
from lora_lightning.train.cache import Cache, read
from lora_lightning.train.encode import embedding, encode_images, encode_texts, pixels
from lora_lightning.train.examples import freeze

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def reporter(tmp_path):
    (tmp_path / "run").mkdir()
    return Reporter(RunFolder(tmp_path / "run"))


@pytest.fixture
def family(tiny_flux):
    return open_family(str(tiny_flux), device=CPU, dtype=torch.float32)


def make(value):
    return lambda: {"a": torch.full((2, 3), value), "b": torch.arange(4).to(torch.bfloat16)}


def refuse():
    raise AssertionError("made again")


def test_an_entry_is_made_once(cache):
    path = cache.path("things", of="this", size=3)
    cache.ensure(path, make(1.0))
    cache.ensure(path, refuse)
    assert torch.equal(read(path)["a"], torch.ones(2, 3))
    assert read(path)["b"].dtype == torch.bfloat16
    assert [child.name for child in path.parent.iterdir()] == [path.name]


def test_whatever_it_depends_on_has_an_entry_of_its_own(cache):
    base = {"picture": "ab", "crop": {"left": 1}, "encoder": "x"}
    changes = [{}, {"picture": "ac"}, {"crop": {"left": 2}}, {"encoder": "y"}]
    paths = {cache.path("latents", **(base | change)) for change in changes}
    assert len(paths) == len(changes)
    assert cache.path("texts", **base) not in paths


@pytest.mark.parametrize("place", [3, 40, -1])
@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_entry_is_made_again(cache, place, harm):
    path = cache.path("things", of="this")
    cache.ensure(path, make(1.0))
    data = bytearray(path.read_bytes())
    if harm == "flip":
        data[place] ^= 0x10
    path.write_bytes({"flip": data, "cut": data[:place], "empty": b""}[harm])
    with pytest.raises(JobError, match="damaged or removed"):
        read(path)
    cache.ensure(path, make(2.0))
    assert torch.equal(read(path)["a"], torch.full((2, 3), 2.0))


def test_an_encoder_is_known_by_the_bytes_of_its_files(cache, tiny_flux, tmp_path):
    folder = shutil.copytree(tiny_flux / "vae", tmp_path / "vae")
    same = cache.identity(Encoder((folder,), "float32"))
    assert cache.identity(Encoder((folder,), "float32")) == same
    assert Cache(tmp_path / "other").identity(Encoder((folder,), "float32")) == same
    assert cache.identity(Encoder((folder,), "bfloat16")) != same
    weights = folder / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert cache.identity(Encoder((folder,), "float32")) != same


def encoded(home, family, cache, reporter, resolutions=(64,)):
    dataset = Dataset.open(home.dataset("pictures"))
    examples = freeze(dataset, "TOK", reporter.run.path / "dataset.jsonl")
    texts = encode_texts([e.caption for e in examples], family=family, cache=cache, reporter=reporter)
    items = encode_images(examples, dataset.images, resolutions, texts, family=family, cache=cache, reporter=reporter)
    return dataset, examples, items


def test_cached_equals_uncached(home, family, cache, reporter):
    dataset, examples, items = encoded(home, family, cache, reporter)
    for example, item in zip(examples, items, strict=True):
        crop = crop_box(example.width, example.height, item.bucket)
        direct = family.encode_image(pixels(dataset.images / example.file, crop)[None])
        latents = read(item.latents)
        assert torch.equal(latents["mean"], direct.mean_BCHW)
        assert torch.equal(latents["std"], direct.std_BCHW)
        assert torch.equal(embedding(item.text).sequence_BLD, family.encode_text([example.caption]).sequence_BLD)
        assert torch.equal(embedding(item.text).pooled_BD, family.encode_text([example.caption]).pooled_BD)


def test_a_second_time_nothing_is_loaded(home, family, cache, reporter):
    _, _, first = encoded(home, family, cache, reporter)
    family.release()
    _, _, second = encoded(home, family, cache, reporter)
    assert second == first
    assert not family._parts


def test_every_resolution_that_needs_no_enlargement_is_an_item(home, family, cache, reporter):
    _, _, items = encoded(home, family, cache, reporter, resolutions=(64, 96, 4096))
    assert len(items) == 6
    assert len({item.latents for item in items}) == 6
    for item in items:
        assert read(item.latents)["mean"].shape == (1, 16, item.bucket.height // 8, item.bucket.width // 8)


def test_pixels_are_cut_to_the_bucket_and_scaled(photos):
    coffee = next(photo for photo in photos if photo.stem == "coffee")
    cut = pixels(coffee, crop_box(600, 400, Bucket(80, 48)))
    assert cut.shape == (3, 48, 80)
    assert -1 <= cut.min() < -0.9
    assert 0.9 < cut.max() <= 1


def test_a_stop_is_heard_between_two_pictures(home, family, cache, reporter):
    reporter.run.request("STOP")
    with pytest.raises(Stopped):
        encoded(home, family, cache, reporter)
