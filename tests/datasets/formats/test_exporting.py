"""An export is read again the other program's way before it counts."""

import json

import pytest
from PIL import Image

from lora_lightning import plugins
from lora_lightning.datasets import alternates, exporting
from lora_lightning.datasets.formats import diffusers
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import InputError, JobError

FORMATS = plugins.names("datasets/formats")
SPOILT = {  # a file of the export, and what a bug might have left in it
    "ai_toolkit": ("images/0001.txt", "an astronaut smiles\n"),
    "diffusers": ("metadata.jsonl", '{"file_name": "0001.png", "text": "an astronaut smiles"}'),
    "kohya": ("images/1_trio/0001.txt", "\n"),
    "onetrainer": ("images/0001.txt", "\n\nanother"),
    "seed": ("trio_captions.json", '{"captions": {}}'),
    "sidecar": ("astronaut.txt", "another"),
    "simpletuner": ("images/0001.txt", "first\nan astronaut smiles"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_proves_itself(name, dataset, tmp_path):
    done = exporting.export(dataset, name, tmp_path / "out")
    assert (done.pictures, done.captions) == (3, 1)
    assert any("2 of 3 pictures have no caption" in note for note in done.notes)
    assert all(path.is_file() for path in done.files)
    assert exporting.titles()[name]


@pytest.mark.parametrize("name", FORMATS)
def test_what_the_program_would_read_differently_is_found(name, dataset, tmp_path):
    exporting.export(dataset, name, tmp_path / "out")
    plugin = plugins.load("datasets/formats", name)
    pictures = dataset.pictures()
    stems = plugin.stems(pictures) if name == "sidecar" else ["0001", "0002", "0003"]
    expected = dict(zip(stems, pictures, strict=True))
    exporting.check(expected, plugin.read(tmp_path / "out"))
    file, text = SPOILT[name]
    assert (tmp_path / "out" / file).is_file()
    (tmp_path / "out" / file).write_text(text)
    with pytest.raises(JobError, match="reads back differently"):
        exporting.check(expected, plugin.read(tmp_path / "out"))


def test_a_picture_of_another_size_is_found(dataset, tmp_path):
    exporting.export(dataset, "onetrainer", tmp_path / "out")
    plugin = plugins.load("datasets/formats", "onetrainer")
    Image.new("RGB", (9, 9)).save(tmp_path / "out" / "images" / "0003.png")
    expected = dict(zip(["0001", "0002", "0003"], dataset.pictures(), strict=True))
    with pytest.raises(JobError, match=r"0003\.png reads back differently: it has 9 x 9 pixels"):
        exporting.check(expected, plugin.read(tmp_path / "out"))


def test_short_captions_and_tags_go_with_an_image_folder_and_come_back(workspace, dataset, tmp_path):
    second = dataset.pictures()[1]
    dataset.write_caption(second.id, "a wall", author="human")
    dataset.write_caption(second.id, "wall, bricks", author="human", kind="tags")
    diffusers.export(dataset, tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert [set(row) for row in rows] == [{"file_name", "text", "tags"}] * 3
    assert import_sources(workspace, "again", [tmp_path / "out"]).rejected == []
    again = Dataset.open(workspace.dataset("again"))
    assert {id: {k: a.text for k, a in kinds.items()} for id, kinds in alternates.current(again).items()} == {
        2: {"tags": "wall, bricks"}
    }


def test_an_unknown_format_names_those_that_there_are(dataset, tmp_path):
    with pytest.raises(InputError, match="nonsense"):
        exporting.export(dataset, "nonsense", tmp_path / "out")
