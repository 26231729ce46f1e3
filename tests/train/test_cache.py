"""The cache: never stale, never damaged, and the same as no cache at all."""

import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

from lora_lightning.datasets.buckets import Bucket, crop_box
from lora_lightning.datasets.crops import Augment, View
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import DatasetError, JobError, Stopped
from lora_lightning.models.base import Encoder, open_family
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.reporter import Reporter
from lora_lightning.train.cache import Cache, read
from lora_lightning.train.encode import embedded, encode_images, encode_texts, pixels
from lora_lightning.train.examples import content_hash, freeze
from lora_lightning.train.mend import Mender

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


def test_what_was_read_does_not_change_with_its_file(cache):
    path = cache.path("things", of="this")
    cache.ensure(path, make(1.0))
    tensors = read(path)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(tensors["a"], torch.ones(2, 3))


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


def encoded(home, family, cache, reporter, resolutions=(64,), augment=None):
    dataset = Dataset.open(home.dataset("pictures"))
    examples = freeze(dataset, "TOK", reporter.run.path / "dataset.jsonl")
    texts = encode_texts([e.caption for e in examples], family=family, cache=cache, reporter=reporter)
    options = {"family": family, "cache": cache, "reporter": reporter, "augment": augment or Augment()}
    return dataset, examples, encode_images(examples, dataset.images, resolutions, texts, **options)


def test_cached_equals_uncached(home, family, cache, reporter):
    dataset, examples, items = encoded(home, family, cache, reporter)
    for example, item in zip(examples, items, strict=True):
        view = View(crop_box(example.width, example.height, item.bucket))
        direct = family.encode_image(pixels(dataset.images / example.file, view)[None])
        latents = read(item.latents)
        assert torch.equal(latents["mean"], direct.mean_BCHW)
        assert torch.equal(latents["std"], direct.std_BCHW)
        assert torch.equal(embedded(read(item.text)).sequence_BLD, family.encode_text([example.caption]).sequence_BLD)
        assert torch.equal(embedded(read(item.text)).pooled_BD, family.encode_text([example.caption]).pooled_BD)


def test_a_second_time_nothing_is_encoded(home, family, cache, reporter, monkeypatch):
    _, _, first = encoded(home, family, cache, reporter)
    monkeypatch.setattr(family, "encode_image", lambda _: refuse())
    monkeypatch.setattr(family, "encode_text", lambda _: refuse())
    _, _, second = encoded(home, family, cache, reporter)
    assert second == first


def test_every_resolution_that_needs_no_enlargement_is_an_item(home, family, cache, reporter):
    _, _, items = encoded(home, family, cache, reporter, resolutions=(64, 96, 4096))
    assert len(items) == 6
    assert len({item.latents for item in items}) == 6
    for item in items:
        assert read(item.latents)["mean"].shape == (1, 16, item.bucket.height // 8, item.bucket.width // 8)


def test_pixels_are_cut_to_the_bucket_and_scaled(photos):
    coffee = next(photo for photo in photos if photo.stem == "coffee")
    cut = pixels(coffee, View(crop_box(600, 400, Bucket(80, 48))))
    assert cut.shape == (3, 48, 80)
    assert -1 <= cut.min() < -0.9
    assert 0.9 < cut.max() <= 1


def test_every_view_has_latents_of_its_own_and_the_mirrored_ones_are_of_the_mirrored_picture(
    home, family, cache, reporter
):
    dataset, examples, items = encoded(home, family, cache, reporter, augment=Augment(crops=3, flip=True))
    assert [len(item.views) for item in items] == [6, 6, 6]
    assert len({entry.path for item in items for entry in item.views}) == 18
    plain, mirrored = items[0].views[:2]
    assert (plain.view.flipped, mirrored.view.flipped) == (False, True)
    shown = pixels(dataset.images / examples[0].file, plain.view)
    assert torch.equal(pixels(dataset.images / examples[0].file, mirrored.view), shown.flip(-1))
    assert torch.equal(read(mirrored.path)["mean"], family.encode_image(shown.flip(-1)[None]).mean_BCHW)
    different = [read(entry.path)["mean"] for entry in items[0].views]
    assert all(not torch.equal(a, b) for n, a in enumerate(different) for b in different[:n])
    _, _, again = encoded(home, family, cache, reporter, augment=Augment(crops=2, flip=True))
    assert all(set(few.views) < set(many.views) for few, many in zip(again, items, strict=True))


def test_the_name_of_an_entry_tells_apart_whatever_its_latents_depend_on(
    home, family, cache, reporter, tiny_schnell, tmp_path
):
    dataset, examples, _ = encoded(home, family, cache, reporter)
    example = next(example for example in examples if example.width != example.height)
    vae = shutil.copytree(tiny_schnell, tmp_path / "other")
    weights = vae / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    on_gray = example.file.replace(".png", ".on-808080.png")
    shutil.copy(dataset.images / example.file, dataset.images / on_gray)

    def entry(**changes):
        other = changes.pop("family", family)
        side = changes.pop("side", 64)
        augment = Augment(flip=changes.pop("flip", False))
        texts = {example.caption: tmp_path}
        options = {"family": other, "cache": cache, "reporter": reporter, "augment": augment}
        (item,) = encode_images([replace(example, **changes)], dataset.images, [side], texts, **options)
        return item.views[-1].path

    (dataset.folder / "masks").mkdir()
    sums = []
    for name in ("a.png", "b.png"):
        path = dataset.folder / "masks" / name
        Image.new("L", (example.width, example.height), len(sums)).save(path)
        sums.append(content_hash(path))
    same = {entry(), entry(caption=example.caption, centre=(0.5, 0.5))}
    others = [
        entry(side=96),
        entry(flip=True),
        entry(centre=(1.0, 1.0)),
        entry(file=on_gray),
        entry(mask="masks/a.png", mask_sha256=sums[0]),
        entry(mask="masks/b.png", mask_sha256=sums[1]),
        entry(reference="masks/a.png", reference_sha256=sums[0]),
        entry(mask=f"images/{example.file}", mask_sha256=example.sha256),
        entry(family=open_family(str(vae), device=CPU, dtype=torch.float32)),
    ]
    assert len(same) == 1
    assert len({*same, *others}) == 10


def test_an_entry_that_is_damaged_in_training_is_made_again(home, family, cache, reporter, tiny_flux, caplog):
    _, _, (item, *_) = encoded(home, family, cache, reporter)
    mender = Mender(cache, lambda: open_family(str(tiny_flux), device=CPU, dtype=torch.float32))
    for entry in (item.views[0], item.captions[0][0]):
        whole = mender(entry)
        entry.path.write_bytes(entry.path.read_bytes()[:-1])
        with pytest.raises(JobError):
            read(entry.path)
        mended = mender(entry)
        assert mended.keys() == whole.keys()
        assert all(torch.equal(mended[name], whole[name]) for name in whole)
        assert str(entry.path) in caplog.messages[-1]
        caplog.clear()
        mender(entry)
        assert not caplog.messages


def test_a_picture_that_changed_is_never_encoded_under_its_old_name(home, family, cache, reporter, tiny_flux):
    dataset, (example, *_), (item, *_) = encoded(home, family, cache, reporter)
    item.latents.unlink()
    path = dataset.images / example.file
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DatasetError, match="was changed"):
        Mender(cache, lambda: open_family(str(tiny_flux), device=CPU, dtype=torch.float32))(item.views[0])
    assert not item.latents.exists()


def test_a_stop_is_heard_between_two_pictures(home, family, cache, reporter):
    reporter.run.request("STOP")
    with pytest.raises(Stopped):
        encoded(home, family, cache, reporter)
