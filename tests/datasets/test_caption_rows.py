"""Captions as other programs list them: every shape finds its picture, and several captions of one are kept apart."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lightning.datasets import alternates
from lora_lightning.datasets.caption_rows import read_json, read_lines, read_table
from lora_lightning.datasets.entries import Unusable
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.names import one_line
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import CaptionConflict, DatasetError, InputError

LONG = "a dog on a beach"
SHAPES = {
    "metadata.jsonl": '{"file_name": "1.png", "text": "a dog on a beach"}\n\n{"file_name": "2.png", "text": ""}\n',
    "musubi.jsonl": '{"image_path": "/data/set/1.png", "caption": "a dog on a beach"}',
    "metadata.csv": 'file_name,text\r\n1.png,a dog on a beach\r\n2.png,""\r\n',
    "rows.json": '[{"image": "1.png", "prompt": "a dog on a beach"}]',
    "meta_cap.json": '{"/data/set/1": {"caption": "a dog on a beach", "train_resolution": [512, 512]}}',
    "list.json": '{"1.png": ["a dog on a beach"]}',
    "lists.jsonl": '{"file_name": "1.png", "text": ["a dog on a beach"]}',
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_finds_its_picture(name, workspace, make_zip, small_photos):
    report = import_sources(
        workspace, "x", [make_zip({"1.png": small_photos[0], "2.png": small_photos[1], name: SHAPES[name]})]
    )
    assert (report.captions, report.rejected) == (1, [])
    assert [picture.caption for picture in Dataset.open(workspace.dataset("x")).pictures()] == [LONG, ""]


@pytest.mark.parametrize(
    ("listed", "others"),
    [
        ({"caption": LONG, "tags": "dog, beach"}, {"tags": "dog, beach"}),
        ({"caption": LONG, "tags": ["dog", "beach"]}, {"tags": "dog, beach"}),
        ({"caption": LONG, "caption_short": "a dog"}, {"short": "a dog"}),
        ([LONG, "a dog", "a wet dog"], {"caption-2": "a dog", "caption-3": "a wet dog"}),
        ({"tags": LONG}, {}),
    ],
)
def test_several_captions_of_a_picture_are_kept_apart(listed, others, workspace, make_zip, small_photos):
    source = make_zip({"1.png": small_photos[0], "c.json": json.dumps({"1.png": listed})})
    assert import_sources(workspace, "x", [source]).rejected == []
    dataset = Dataset.open(workspace.dataset("x"))
    assert dataset.picture(1).caption == LONG
    assert {kind: each.text for kind, each in alternates.current(dataset).get(1, {}).items()} == others


@pytest.mark.parametrize(
    ("reader", "data", "reason"),
    [
        (read_lines, b'{"file_name": "1.png", "text": "a"}\n{"file_name"', "line 2 is not valid JSON"),
        (read_lines, b'{"name": "1.png"}', "no captions in it"),
        (read_lines, b"\xff\xff", "not UTF-8"),
        (read_lines, b"", "no captions in it"),
        (read_table, b"a,b\n1,2\n", "no captions in it"),
        (read_table, b'file_name,text\n"1.png,' + b"x" * 200_000, "not valid CSV"),
        (read_json, b'{"version": 1, "steps": [3]}', "no captions in it"),
    ],
)
def test_what_is_no_list_of_captions_says_why(reader, data, reason):
    with pytest.raises(Unusable, match=reason):
        reader("c", data, lambda *_: None)


def test_a_row_whose_caption_is_no_text_is_reported(workspace, make_zip, small_photos):
    rows = '{"file_name": "1.png", "text": 7}\n{"file_name": "2.png", "text": "a dog"}'
    source = make_zip({"1.png": small_photos[0], "2.png": small_photos[1], "metadata.jsonl": rows})
    report = import_sources(workspace, "x", [source])
    assert [(note.file, note.reason) for note in report.rejected] == [
        ("metadata.jsonl: 1.png", "the caption is not a text")
    ]


def test_every_kind_has_versions_that_are_never_overwritten_unseen(dataset):
    caption = dataset.picture(1)
    dataset.write_caption(1, "one\nline", author="captioner", kind="short")
    first = dataset.write_caption(1, "by hand", author="human", expected_version=1, kind="short")
    assert (first.caption, first.version, first.author) == ("by hand", 2, "human")
    assert dataset.write_caption(1, "by hand", author="human", kind="short").version == 2
    with pytest.raises(CaptionConflict, match=r"short caption of .* was changed") as conflict:
        dataset.write_caption(1, "mine", author="human", expected_version=1, kind="short")
    assert conflict.value.current == "by hand"
    assert [version.text for version in dataset.history(1, "short")] == ["one line", "by hand"]
    assert dataset.picture(1) == caption
    back = dataset.undo(1, "short")
    assert (back.caption, back.author, back.version) == ("one line", "captioner", 3)
    dataset.write_caption(1, "", author="human", kind="short")
    assert alternates.current(dataset) == {}
    for id, kind, error in ((1, "Two words", InputError), (1, "x' --", InputError), (99, "short", DatasetError)):
        with pytest.raises(error):
            dataset.write_caption(id, "x", author="human", kind=kind)


def test_an_imported_alternate_does_not_replace_one_by_a_person(workspace, dataset, tmp_path):
    dataset.write_caption(1, "by hand", author="human", kind="short")
    dataset.write_caption(2, "by machine", author="captioner", kind="short")
    name = [picture.name for picture in sorted(dataset.pictures(), key=lambda picture: picture.id)]
    listed = {name[0]: {"caption_short": "imported", "caption": "long"}, name[1]: {"short": "new", "caption": "long"}}
    (tmp_path / "c.json").write_text(json.dumps(listed))
    report = import_sources(workspace, "trio", [tmp_path / "c.json"])
    texts = {id: kinds["short"].text for id, kinds in alternates.current(dataset).items()}
    assert texts == {1: "by hand", 2: "new"}
    assert ["a person wrote" in note.reason for note in report.rejected] == [True]


json_lines = st.lists(
    st.dictionaries(
        st.sampled_from(["file_name", "text", "caption", "tags", "caption_short", "other"]),
        st.none() | st.integers() | st.text(max_size=9) | st.lists(st.text(max_size=5), max_size=3),
        max_size=4,
    ),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(rows=json_lines)
def test_any_rows_give_captions_of_one_line_or_a_reason(rows):
    data = "\n".join(json.dumps(row) for row in rows).encode()
    rejected = []
    try:
        claims = read_lines("c.jsonl", data, lambda *note: rejected.append(note))
    except Unusable:
        return
    assert claims
    assert all(claim.text == one_line(claim.text) for claim in claims)
    places = [(claim.path, claim.kind) for claim in claims]
    named = [row["file_name"] for row in rows if isinstance(row.get("file_name"), str) and row["file_name"]]
    assert len({path for path, _ in places}) + len(rejected) <= len(named)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_any_bytes_are_a_list_of_captions_or_not(data):
    for reader in (read_json, read_lines, read_table):
        with contextlib.suppress(Unusable):
            assert reader("c", data, lambda *_: None)
