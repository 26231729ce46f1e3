import io
import sqlite3
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from lora_lightning.datasets import aside, hashing, measures, schema, triage
from lora_lightning.datasets.formats import sidecar
from lora_lightning.datasets.images import open_rgb
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.measures import Measure, measure, measure_all
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.errors import DatasetError


def findings(pictures, measures, resolutions):
    return triage.findings(pictures, measures, resolutions, triage.duplicates(pictures, measures))


def saved(image, path, **options):
    image.save(path, **options)
    return path


@pytest.fixture(scope="module")
def hashes(photos):
    return {photo.name: measure(photo).dhash for photo in photos}


@pytest.mark.parametrize(("scale", "quality"), [(0.5, 30), (0.5, 90), (1.7, 60), (1.0, 30)])
def test_resized_and_recompressed_copies_hash_nearly_alike(photos, hashes, tmp_path, scale, quality):
    for photo in photos:
        image = open_rgb(photo)
        copy = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        path = saved(copy, tmp_path / "copy.jpg", quality=quality)
        assert hashing.distance(measure(path).dhash, hashes[photo.name]) <= hashing.NEAR_BITS, photo.name


def test_different_photographs_hash_differently(hashes):
    for a, b in combinations(hashes.values(), 2):
        assert hashing.distance(a, b) > hashing.NEAR_BITS


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.integers(0, 63), st.data())
def test_groups_are_the_connected_parts(values, bit, data):
    if values:
        values += [data.draw(st.sampled_from(values)) ^ (1 << bit) for _ in range(5)]
    expected = {frozenset({i}) for i in range(len(values))}
    for a, b in combinations(range(len(values)), 2):
        if (values[a] ^ values[b]).bit_count() <= 8:
            joined = [part for part in expected if a in part or b in part]
            expected = (expected - set(joined)) | {frozenset().union(*joined)}
    found = hashing.groups(np.array(values, np.uint64))
    assert {frozenset(group) for group in found} == {part for part in expected if len(part) > 1}
    assert all(group == sorted(group) for group in found)


def test_blur_is_told_from_soft_contrast(photos, tmp_path):
    sharp = {p.name: measure(p).sharpness for p in photos if p.name != "clock_motion.png"}
    assert min(sharp.values()) > triage.BLURRED_BELOW
    motion = next(p for p in photos if p.name == "clock_motion.png")
    assert measure(motion).sharpness < triage.BLURRED_BELOW  # it is blurred by motion
    for name in ("astronaut.png", "moon.png", "coffee.png", "rocket.jpg"):
        image = open_rgb(next(p for p in photos if p.name == name))
        blurred = image.filter(ImageFilter.GaussianBlur(0.003 * max(image.size)))
        assert measure(saved(blurred, tmp_path / "blurred.png")).sharpness < triage.BLURRED_BELOW


def test_a_picture_of_one_colour_can_be_measured(tmp_path):
    flat = saved(Image.new("RGB", (2, 500), "red"), tmp_path / "flat.png")
    assert measure(flat).sharpness == 0


@pytest.fixture
def messy(workspace, photos, tmp_path):
    """Real photographs with a small copy, a blurred, a dark, a bright and a long one among them."""
    astronaut, coffee = open_rgb(photos[0]), open_rgb(photos[5])
    sources = [
        photos[0], photos[5], photos[6],
        saved(astronaut.resize((200, 200)), tmp_path / "small.jpg"),
        saved(astronaut, tmp_path / "copy.jpg", quality=70),
        saved(coffee.filter(ImageFilter.GaussianBlur(6)).transpose(Image.Transpose.ROTATE_180), tmp_path / "soft.png"),
        saved(open_rgb(photos[3]).point(lambda v: v // 6), tmp_path / "dark.png"),
        saved(open_rgb(photos[12]).resize((900, 400)).point(lambda v: 246 + v // 30), tmp_path / "bright.png"),
    ]  # fmt: skip
    import_sources(workspace, "messy", sources)
    return Dataset.open(workspace.dataset("messy"))


def test_findings_name_the_reason_the_figure_and_the_way_out(messy):
    pictures = messy.pictures()
    found = findings(pictures, measure_all(messy, pictures), [512, 1024])
    said = {(f.name, f.kind): f for f in found}
    assert {"copy.jpg", "small.jpg"} == {name for name, kind in said if kind == "duplicate"}
    assert said["small.jpg", "duplicate"].suggestion.startswith("Set it aside and keep astronaut.png (512 x 512).")
    assert said["small.jpg", "small"].reason == "would be upscaled 2.6x for 512 pixels"
    assert "192 x 192" in said["small.jpg", "small"].suggestion
    assert said["soft.png", "blurred"].value < triage.BLURRED_BELOW
    assert said["dark.png", "dark"].value < 0.2
    assert said["bright.png", "bright"].value > 0.95
    assert said["bright.png", "aspect"].reason == "2.2 times as long as wide"
    assert not [kind for name, kind in said if name == "coffee.png" or (name == "astronaut.png" and kind != "small")]


def test_the_worst_comes_first_in_each_kind(photos):
    pictures = [Picture(i, f"{i}", f"{i}.png", str(i), side, side) for i, side in enumerate([400, 100, 300])]
    alike = {p.id: Measure(1 << (20 * p.id), sharpness=50, shadows=0, highlights=1) for p in pictures}
    far = {i: Measure(hash, 50, 0, 1) for i, hash in enumerate([0, 2**32 - 1, 2**64 - 1])}
    assert [f.picture for f in findings(pictures, far, [512])] == [1, 2, 0]
    assert {f.kind for f in findings(pictures, alike, [64])} == {"duplicate"}


def test_the_best_is_the_largest_then_the_sharpest_then_the_captioned():
    def picture(id, side=500, caption="", author=""):
        return Picture(id, f"{id}", f"{id}.png", str(id), side, side, caption, int(bool(caption)), author)

    def best(*pictures, sharpness=(50, 50, 50)):
        of = {p.id: Measure(7, value, 0, 1) for p, value in zip(pictures, sharpness, strict=False)}
        (group,) = triage.duplicates(pictures, of)
        return group

    assert best(picture(1), picture(2, 900), picture(3)).best.id == 2
    assert best(picture(1), picture(2), picture(3), sharpness=(50, 40, 60)).best.id == 3
    by_hand = best(picture(1, caption="a much longer caption", author="joycaption"), picture(2, 499, "dog", "human"))
    assert (by_hand.best.id, by_hand.captioned.id) == (1, 2)
    assert best(picture(1), picture(2, caption="x", author="human")).best.id == 2
    assert best(picture(1), picture(2)).captioned is None


def test_leaks_are_groups_on_both_sides_of_the_split():
    pictures = [Picture(i, f"{i}", f"{i}.png", str(i), 9, 9) for i in range(4)]
    groups = triage.duplicates(pictures, {i: Measure([0, 1, 2**60 - 1, 2**60 - 2][i], 1, 0, 1) for i in range(4)})
    assert [sorted({g.best.id, *(p.id for p in g.others)}) for g in triage.leaks(groups, {0, 2, 3})] == [[0, 1]]


def test_measures_are_taken_once_and_survive_an_interruption(messy, monkeypatch):
    monkeypatch.setattr(measures, "STORED_AT_ONCE", 3)
    pictures, told = messy.pictures(), []

    def stop_at_six(done):
        told.append(done)
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_all(messy, pictures, stop_at_six)
    first = measure_all(messy, pictures, told.append)
    assert told == [3, 6, 8]
    for picture in pictures:
        messy.path(picture).unlink()
    assert measure_all(messy, pictures) == first


def test_a_picture_that_is_gone_is_named(messy):
    pictures = messy.pictures()
    messy.path(pictures[0]).unlink()
    with pytest.raises(DatasetError, match="is gone"):
        measure_all(messy, pictures)


def test_set_aside_leaves_every_step_but_not_the_disk(messy, workspace, photos, tmp_path):
    every = messy.pictures()
    fresh = aside.set_aside(messy, {every[0].id: "a duplicate", every[2].id: "blurred"})
    assert sorted(fresh) == sorted([every[0].id, every[2].id])
    assert aside.set_aside(messy, {every[0].id: "another reason"}) == []
    assert [p.id for p in messy.pictures()] == [p.id for p in every if p.id not in fresh]
    assert messy.statistics().pictures == len(every) - 2
    assert len(sidecar.export(messy, tmp_path / "out")) == len(every) - 2
    reasons = {p.id: p.aside for p in messy.pictures(include_aside=True) if p.aside}
    assert reasons == {every[0].id: "a duplicate", every[2].id: "blurred"}

    import_sources(workspace, "messy", [photos[7], messy.path(every[0])])  # an import sweeps and compares all files
    assert all(messy.path(picture).is_file() for picture in every)
    assert len(messy.pictures(include_aside=True)) == len(every) + 1

    aside.bring_back(messy, fresh)
    assert [p for p in messy.pictures() if p.id <= len(every)] == every


def test_setting_aside_a_stranger_changes_nothing(messy):
    with pytest.raises(DatasetError, match="no picture number 99"):
        aside.set_aside(messy, {1: "blurred", 99: "blurred"})
    assert len(messy.pictures()) == 8


def test_a_dataset_of_the_first_schema_is_brought_up_to_date(messy):
    with sqlite3.connect(messy.database) as db:
        db.executescript(
            "DROP TABLE aside; DROP TABLE measures; DROP TABLE bulk_captions; DROP TABLE bulks; PRAGMA user_version = 1"
        )
    before = db.execute("SELECT * FROM pictures").fetchall()
    db.close()
    again = Dataset.open(messy.folder)
    assert len(again.pictures()) == len(before) == 8
    aside.set_aside(again, {1: "blurred"})
    with schema.connection(messy.database) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION
    schema.upgrade(messy.database)
    assert len(Dataset.open(messy.folder).pictures()) == 7


def test_jpeg_draft_mode_does_not_change_the_verdict(photos, tmp_path):
    image = open_rgb(photos[0]).resize((2000, 2000), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    (tmp_path / "large.jpg").write_bytes(buffer.getvalue())
    large, lossless = measure(tmp_path / "large.jpg"), measure(saved(image, tmp_path / "large.png"))
    assert hashing.distance(large.dhash, lossless.dhash) <= 2
    assert large.sharpness == pytest.approx(lossless.sharpness, rel=0.3)
