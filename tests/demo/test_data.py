"""The demo data sets: plain pictures, held-out objects, truth for each."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

DATA = Path(__file__).parents[2] / "lora_lightning/demo/data"
MANIFEST = json.loads((DATA / "manifest.json").read_text())


@pytest.mark.parametrize("name", MANIFEST)
def test_pictures_are_plain_and_named_in_the_manifest(name):
    with zipfile.ZipFile(DATA / MANIFEST[name]["file"]) as archive:
        assert sorted(archive.namelist()) == sorted(MANIFEST[name]["pictures"])
        for entry in archive.namelist():
            with Image.open(io.BytesIO(archive.read(entry))) as picture:
                assert (picture.size, picture.mode, picture.format) == ((128, 128), "RGB", "PNG")


@pytest.mark.parametrize("name", MANIFEST)
def test_held_out_objects_are_never_shown(name):
    shown = {facts["concept"] for facts in MANIFEST[name]["pictures"].values()}
    held = {row["concept"] for row in MANIFEST[name]["held_out"]}
    assert len(held) == 24
    assert not shown & held
    assert not any(word in facts["caption"].split() for facts in MANIFEST[name]["pictures"].values() for word in held)


def test_the_captioner_describes_every_picture_of_both_styles_rightly():
    """A zebra that is called a ram teaches the demo's LoRA that rams are zebras."""
    pytest.importorskip("torch")
    from lora_lightning.demo.pretrain.data import Reader

    read = Reader(DATA.parent / "models/captioner-mini")
    for name in ("ink-style", "fx-style"):
        with zipfile.ZipFile(DATA / MANIFEST[name]["file"]) as archive:
            shown = MANIFEST[name]["pictures"]
            pictures = [Image.open(io.BytesIO(archive.read(entry))) for entry in shown]
        assert read(pictures) == [facts["caption"] for facts in shown.values()]


@pytest.mark.parametrize("name", ["ink-style", "fx-style"])
def test_truth_is_the_target_style(name):
    torch = pytest.importorskip("torch")
    from lora_lightning.demo import judge as examiner

    judge, names = examiner.load(Path(__file__).parent / "judge")
    rows = MANIFEST[name]["held_out"]
    pictures = [Image.open(DATA / row["truth"]).convert("RGB") for row in rows]
    assert examiner.style_probability(judge, names, pictures, MANIFEST[name]["style"]) > 0.98
    with torch.no_grad():
        found = judge(torch.stack([examiner.pixels(picture) for picture in pictures]))["concept"].argmax(1)
    assert sum(names.concept[i] == row["concept"] for i, row in zip(found, rows, strict=True)) >= 23
