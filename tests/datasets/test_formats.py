"""Our own two formats: what they write, and that importing it again gives the same dataset."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from lora_lightning import plugins
from lora_lightning.datasets import aside
from lora_lightning.datasets.formats import seed, sidecar
from lora_lightning.datasets.images import open_rgb
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import InputError


@pytest.fixture(scope="module")
def varied(photos, tmp_path_factory):
    """Real photographs in every format, turned, transparent, 16-bit and with a colour profile; half have captions."""
    from lora_lightning.workspace import Workspace

    folder = tmp_path_factory.mktemp("varied")
    with Image.open(photos[3]) as image:
        colour = image.convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    colour.save(folder / "Turned Übung.jpg", exif=exif)
    colour.save(folder / "plain.jpg")
    colour.rotate(45).save(folder / "PLAIN.webp", lossless=True)
    for turn, suffix in enumerate(("bmp", "tiff", "gif"), start=1):
        colour.rotate(90 * turn).save(folder / f"plain.{suffix}")
    colour.convert("CMYK").save(folder / "cmyk.jpg")
    clear = colour.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(folder / "clear.png")
    Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 201).save(folder / "deep.png")
    shutil.copy(photos[13], folder / "profile.jpg")
    workspace = Workspace.find(tmp_path_factory.mktemp("home"))
    import_sources(workspace, "mine", [folder])
    dataset = Dataset.open(workspace.dataset("mine"))
    for picture in dataset.pictures()[::2]:
        dataset.write_caption(picture.id, f'{picture.name}: "quoted", ünïcode 犬: a dog', author="human")
    return dataset


def same(dataset, again):
    """Whether two datasets hold the same captions and pixels in the same order."""
    assert [p.caption for p in again.pictures()] == [p.caption for p in dataset.pictures()]
    for old, new in zip(dataset.pictures(), again.pictures(), strict=True):
        assert open_rgb(dataset.path(old)).tobytes() == open_rgb(again.path(new)).tobytes()


@pytest.mark.parametrize("given", [(0, 2), (1, 2), (0, 1, 2)])
def test_the_seeds_three_files_come_back_whole(varied, workspace, tmp_path, given):
    made = seed.export(varied, tmp_path)
    assert [path.name for path in made] == ["mine_captions.txt", "mine_captions.json", "mine_processed_images.zip"]
    report = import_sources(workspace, "again", [made[n] for n in given])
    assert (report.rejected, report.captions) == ([], 5)
    same(varied, Dataset.open(workspace.dataset("again")))


def test_the_seeds_files_say_the_same(varied, tmp_path):
    text, document, images = seed.export(varied, tmp_path)
    captions = json.loads(document.read_text())["captions"]
    assert dict(line.split(": ", 1) for line in text.read_text().splitlines()) == captions
    with zipfile.ZipFile(images) as archive:
        assert archive.namelist() == [f"{n:04d}.png" for n in range(1, 11)]
        assert set(captions) < set(archive.namelist())
        with archive.open("0001.png") as file, Image.open(file) as image:
            assert (image.mode, image.info.get("icc_profile")) == ("RGB", None)


def test_exporting_again_replaces_the_files_with_equal_ones(varied, tmp_path):
    first = [path.read_bytes() for path in seed.export(varied, tmp_path)]
    assert [path.read_bytes() for path in seed.export(varied, tmp_path)] == first
    assert len(list(tmp_path.iterdir())) == 3


def test_only_new_pictures_are_encoded_and_the_bytes_are_those_of_a_whole_export(varied, tmp_path, monkeypatch):
    whole = seed.export(varied, tmp_path / "whole")[2]
    encoded = []
    encode = seed._png
    monkeypatch.setattr(seed, "_png", lambda path: encoded.append(path.name) or encode(path))
    again = seed.export(varied, tmp_path / "again", whole)[2]
    assert (encoded, again.read_bytes(), again.stat().st_ino) == ([], whole.read_bytes(), whole.stat().st_ino)
    last, first = varied.pictures()[-1], varied.pictures()[0]
    aside.set_aside(varied, {last.id: "not today", first.id: "nor this"})
    fewer = seed.export(varied, tmp_path / "again")[2].read_bytes()
    assert fewer == seed.export(varied, tmp_path / "fewer", tmp_path / "none.zip")[2].read_bytes()
    assert (len(encoded), whole.stat().st_nlink) == (8, 1)  # the eight of the export without an earlier ZIP
    aside.bring_back(varied, [last.id, first.id])
    assert seed.export(varied, tmp_path / "again")[2].read_bytes() == whole.read_bytes()
    assert encoded[8:] == [first.file, last.file]


def test_a_damaged_earlier_export_is_not_taken_over(varied, tmp_path):
    whole = seed.export(varied, tmp_path / "whole")[2]
    data = bytearray(whole.read_bytes())
    data[data.index(b"IDAT") + 20] ^= 1
    for damaged in (bytes(data), data[:1000]):
        (tmp_path / "damaged.zip").write_bytes(damaged)
        aside.set_aside(varied, {varied.pictures()[-1].id: "so that the ZIP is written anew"})
        seed.export(varied, tmp_path / "out", tmp_path / "damaged.zip")
        aside.bring_back(varied, [picture.id for picture in varied.pictures(include_aside=True)])
        assert seed.export(varied, tmp_path / "out")[2].read_bytes() == whole.read_bytes()


def test_sidecars_come_back_whole(varied, workspace, tmp_path):
    made = sidecar.export(varied, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [path.name for path in made]
    report = import_sources(workspace, "again", [tmp_path / "out"])
    assert (report.rejected, report.changed, report.captions) == ([], [], 5)
    again = Dataset.open(workspace.dataset("again"))
    pictures = {p.name: (p.caption, open_rgb(again.path(p)).tobytes()) for p in again.pictures()}
    assert sorted(pictures.values()) == sorted(
        (p.caption, open_rgb(varied.path(p)).tobytes()) for p in varied.pictures()
    )


def test_sidecars_keep_names_apart_and_untouched_bytes(varied, tmp_path):
    made = sidecar.export(varied, tmp_path / "out")
    stems = [path.stem.lower() for path in made if path.suffix != ".txt"]
    assert len(set(stems)) == len(stems) == 10
    assert {"plain", "plain-2", "plain-3", "plain-4", "plain-5", "turned_ubung"} <= set(stems)
    plain = next(picture for picture in varied.pictures() if picture.name == "plain.jpg")
    assert varied.path(plain).read_bytes() in [path.read_bytes() for path in made if path.suffix == ".jpg"]
    assert all(path.read_text() == path.read_text().strip() != "" for path in made if path.suffix == ".txt")


def test_sidecars_never_mix_with_other_files(varied, tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="not an empty folder"):
        sidecar.export(varied, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_both_are_plugins():
    assert {"seed", "sidecar"} <= set(plugins.names("datasets/formats"))
