"""What a run trains on is frozen when it first starts."""

import json
import logging

import pytest

from lora_lightning.datasets import focus
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import DatasetError, InputError
from lora_lightning.train.examples import freeze, freeze_regularisation


@pytest.fixture
def dataset(home):
    return Dataset.open(home.dataset("pictures"))


def test_a_missing_caption_becomes_the_trigger_and_one_warning_counts_them(dataset, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        examples = freeze(dataset, "TOK", tmp_path / "dataset.jsonl")
    assert sorted(example.caption for example in examples) == ["TOK", "TOK, a cat", "TOK, a cup of coffee"]
    assert caplog.messages == [
        "1 of 3 pictures have no caption; the trigger word 'TOK' is used",
        "1 of 3 captions lack the trigger word 'TOK'; it is put before them",
    ]


def test_without_a_trigger_it_becomes_the_empty_caption(dataset, tmp_path, caplog):
    examples = freeze(dataset, "", tmp_path / "dataset.jsonl")
    assert sorted(example.caption for example in examples) == ["", "TOK, a cat", "a cup of coffee"]
    assert caplog.messages == ["1 of 3 pictures have no caption; the empty caption is used"]


def test_the_file_holds_what_the_contract_says(dataset, tmp_path):
    freeze(dataset, "TOK", tmp_path / "dataset.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "dataset.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == [picture.file for picture in dataset.pictures()]
    assert [row["sha256"] for row in rows] == [picture.sha256 for picture in dataset.pictures()]
    assert all({"file", "caption", "sha256"} <= row.keys() for row in rows)


def test_later_edits_do_not_reach_a_run_that_has_begun(dataset, tmp_path):
    first = freeze(dataset, "TOK", tmp_path / "dataset.jsonl")
    for picture in dataset.pictures():
        dataset.write_caption(picture.id, "something else", author="human")
    assert freeze(dataset, "OTHER", tmp_path / "dataset.jsonl") == first
    assert freeze(dataset, "TOK", tmp_path / "fresh.jsonl") != first


def test_a_picture_that_was_changed_or_removed_is_named(dataset, tmp_path):
    first, second, _ = dataset.pictures()
    freeze(dataset, "", tmp_path / "dataset.jsonl")
    path = dataset.path(first)
    original = path.read_bytes()
    path.write_bytes(original + b"x")
    with pytest.raises(DatasetError, match=f"{first.file} .* was changed"):
        freeze(dataset, "", tmp_path / "dataset.jsonl")
    path.write_bytes(original)
    dataset.path(second).unlink()
    with pytest.raises(DatasetError, match=f"{second.file} .* is gone"):
        freeze(dataset, "", tmp_path / "dataset.jsonl")


def test_further_captions_and_the_centre_of_the_crops_are_frozen_too(dataset, tmp_path):
    first, *_ = dataset.pictures()
    dataset.write_caption(first.id, "[trigger], suit, helmet", author="human", kind="tags")
    dataset.write_caption(first.id, "an astronaut", author="human", kind="short")
    focus.move(dataset, first.id, 0.25, 0.75)
    example, *others = freeze(dataset, "TOK", tmp_path / "dataset.jsonl", all_captions=True)
    assert example.captions == ("TOK, an astronaut", "TOK, suit, helmet")  # it has no other
    assert example.centre == (0.25, 0.75)
    assert all(len(other.captions) == 1 and other.centre == (0.5, 0.5) for other in others)
    assert freeze(dataset, "TOK", tmp_path / "dataset.jsonl", all_captions=True) == [example, *others]
    assert freeze(dataset, "TOK", tmp_path / "plain.jsonl")[0].captions == ("TOK",)


def test_the_trigger_fills_its_mark_and_only_a_whole_word_is_one(dataset, tmp_path, caplog):
    first, second, third = dataset.pictures()
    for picture, caption in ((first, "[trigger] in a suit"), (second, "a TOKEN cat"), (third, "a tok cup")):
        dataset.write_caption(picture.id, caption, author="human")
    examples = freeze(dataset, "TOK", tmp_path / "dataset.jsonl")
    assert [example.caption for example in examples] == ["TOK in a suit", "TOK, a TOKEN cat", "a TOK cup"]
    assert caplog.messages == ["1 of 3 captions lack the trigger word 'TOK'; it is put before them"]
    with pytest.raises(InputError, match="no trigger word"):
        freeze(dataset, "", tmp_path / "other.jsonl")


def test_a_regularisation_set_stays_without_the_trigger_and_says_where_it_holds_it(dataset, tmp_path, caplog):
    examples = freeze_regularisation(dataset, "TOK", tmp_path / "regularisation.jsonl")
    assert sorted(example.caption for example in examples) == ["", "TOK, a cat", "a cup of coffee"]
    assert "1 of 3 captions of the regularisation set hold the trigger word 'TOK': they teach it" in caplog.messages


def test_an_empty_dataset_is_refused(workspace, tmp_path):
    empty = Dataset.create(workspace.dataset("empty"))
    with pytest.raises(DatasetError, match="holds no picture"):
        freeze(empty, "", tmp_path / "dataset.jsonl")
    assert not (tmp_path / "dataset.jsonl").exists()
