"""Captions on their way in: JSON, lists, text beside pictures, and whom they are meant for."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_lightning.datasets.caption_rows import read_json
from lora_lightning.datasets.captions import decode_text, is_list, read_list, read_sidecar
from lora_lightning.datasets.entries import Unusable
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.names import one_line
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import DatasetError


def read(document, rejected=None):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    rows = [] if rejected is None else rejected
    return read_json("c.json", data, lambda file, reason: rows.append((file, reason)))


@pytest.mark.parametrize(
    "data",
    [
        {"captions": {"1.png": "a dog"}},
        {"1.png": "a dog"},
        b'\xef\xbb\xbf{"1.png": "a dog"}',
        '{"1.png": "a dog"}'.encode("utf-16"),
        {"captions": {"1.png": "a\n dog"}, "made_by": "seed"},
    ],
)
def test_accepted_shapes(data):
    assert [(claim.path, claim.text) for claim in read(data)] == [("1.png", "a dog")]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"1.png": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b'{"1.png": "a", "1.png": "b"}', "'1.png' appears twice"),
        (b'{"captions": {"1.png": "a", "1.png": "b"}}', "'1.png' appears twice"),
        (b"[1]", "no captions in it"),
        (b'{"1.png": {"caption": 3}}', "no captions in it"),
        (b'"text"', "no captions in it"),
        (b"{}", "no captions in it"),
        (b'{"captions": []}', "no captions in it"),
        (b'{"captions": {"1.png": 3}}', "no captions in it"),
    ],
)
def test_wrong_documents_say_why(data, reason):
    with pytest.raises(Unusable, match=reason):
        read(data)


def test_a_caption_that_is_no_text_is_reported_and_the_others_stay():
    rejected = []
    claims = read({"1.png": "a dog", "2.png": [2], "3.png": None}, rejected)
    assert [claim.path for claim in claims] == ["1.png"]
    assert rejected == [(f"c.json: {n}.png", "the caption is not a text") for n in (2, 3)]


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=500)
@given(st.one_of(json_values.map(lambda value: json.dumps(value).encode()), st.binary(max_size=60)))
def test_any_document_gives_captions_or_a_reason(data):
    try:
        claims = read(data)
    except Unusable:
        return
    assert claims
    assert all(claim.text == one_line(claim.text) for claim in claims)


@given(st.dictionaries(st.text(min_size=1), st.text(), min_size=1))
def test_nothing_of_a_good_document_is_lost(captions):
    claims = read({"captions": captions})
    assert [claim.text for claim in claims] == [one_line(text) for text in captions.values()]


def test_lists_and_sidecars_are_told_apart():
    listed = "0001.png: a dog: brown\n\n0002.JPG:a cat\r\n"
    assert is_list(listed)
    assert [(c.path, c.text) for c in read_list("x.txt", listed)] == [
        ("0001.png", "a dog: brown"),
        ("0002.JPG", "a cat"),
    ]
    for text in ("a dog: brown", "0001.png: a dog\nand more", "", ": x", "https://x/a.png is a link"):
        assert not is_list(text)
    assert read_sidecar("a/0001.txt", "a dog\non a beach").path == "a/0001"
    assert read_sidecar("a/0001.png.txt", "a dog").path == "a/0001.png"


def test_text_encodings():
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert decode_text("ein Hündchen".encode(encoding)) == "ein Hündchen"
    with pytest.raises(Unusable, match="not UTF-8"):
        decode_text("ein Hündchen".encode("latin-1"))


def captions_of(workspace, name="x"):
    return {picture.name: picture.caption for picture in Dataset.open(workspace.dataset(name)).pictures()}


@pytest.mark.parametrize(
    ("picture", "caption_file"),
    [
        ("beach.jpg", "beach.txt"),
        ("beach.jpg", "beach.jpg.txt"),
        ("beach.JPG", "BEACH.TXT"),
        ("beach.avif", "beach.caption"),
        ("v1.5.png", "v1.5.txt"),
        ("set/beach.jpg", "set/beach.txt"),
        ("images/beach.jpg", "captions/beach.txt"),
        ("caf\u00e9.jpg", "cafe\u0301.txt"),
    ],
)
def test_a_text_finds_its_picture(workspace, make_zip, small_photos, picture, caption_file):
    report = import_sources(workspace, "x", [make_zip({picture: small_photos[0], caption_file: "the sea\nat dawn\n"})])
    assert (report.captions, report.rejected) == (1, [])
    assert list(captions_of(workspace).values()) == ["the sea at dawn"]


@pytest.mark.parametrize(
    "key", ["beach.JPG", "beach.jpg", "BEACH.jpg", "beach", "beach.png", "set/beach.jpg", "set\\beach"]
)
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_json_key_finds_its_picture(workspace, make_zip, small_photos, key, wrapped):
    captions = {"captions": {key: "the sea"}} if wrapped else {key: "the sea"}
    source = make_zip({"set/beach.JPG": small_photos[0], "captions.json": json.dumps(captions)})
    report = import_sources(workspace, "x", [source])
    assert (report.captions, report.rejected) == (1, [])


def test_captions_of_equal_names_in_different_folders_go_to_their_own_pictures(workspace, make_zip, small_photos):
    members = {}
    for number, folder in enumerate("abc"):
        members[f"{folder}/0001.png"] = small_photos[number]
    members |= {"a/0001.txt": "from a", "b/captions.json": '{"0001.png": "from b"}'}
    members["captions.json"] = '{"c/0001.png": "from c", "0001.png": "from nowhere"}'
    report = import_sources(workspace, "x", [make_zip(members)])
    assert captions_of(workspace) == {"0001.png": "from a", "0001 (2).png": "from b", "0001 (3).png": "from c"}
    assert [(note.file, note.reason) for note in report.rejected] == [
        ("captions.json: 0001.png", "the name fits 3 pictures; name their folders too")
    ]


def test_names_that_differ_in_case_only_keep_their_own_captions(workspace, make_zip, small_photos):
    members = {"A.png": small_photos[0], "a.png": small_photos[1], "A.txt": "large", "a.txt": "small"}
    report = import_sources(workspace, "x", [make_zip(members)])
    assert captions_of(workspace) == {"A.png": "large", "a (2).png": "small"}
    assert report.rejected == []


def test_captions_may_come_separately_and_later(workspace, make_zip, small_photos, tmp_path):
    import_sources(workspace, "x", [make_zip({"0001.png": small_photos[0], "0002.png": small_photos[1]})])
    (tmp_path / "x_captions.json").write_text('{"captions": {"0001.png": "one", "0009.png": "nine"}}')
    (tmp_path / "x_captions.txt").write_text("0002.png: two: too\n")
    report = import_sources(workspace, "x", [tmp_path / "x_captions.json", tmp_path / "x_captions.txt"])
    assert captions_of(workspace) == {"0001.png": "one", "0002.png": "two: too"}
    assert (report.captions, report.accepted) == (2, [])
    assert [(note.file, note.reason) for note in report.rejected] == [
        ("x_captions.json: 0009.png", "no picture of this name")
    ]


def test_loose_pictures_with_loose_texts(workspace, small_photos, tmp_path):
    (tmp_path / "beach.png").write_bytes(small_photos[0].read_bytes())
    (tmp_path / "beach.txt").write_text("the sea")
    report = import_sources(workspace, "x", [tmp_path / "beach.txt", tmp_path / "beach.png"])
    assert captions_of(workspace) == {"beach.png": "the sea"}
    assert report.rejected == []


def test_a_separate_file_has_the_first_word_and_the_loser_is_reported(workspace, make_zip, small_photos, tmp_path):
    members = {"1.png": small_photos[0], "1.txt": "beside", "captions.json": '{"1.png": "listed"}'}
    (tmp_path / "given.json").write_text('{"1.png": "given"}')
    report = import_sources(workspace, "x", [make_zip(members), tmp_path / "given.json"])
    assert captions_of(workspace) == {"1.png": "given"}
    reason = "its picture already has another caption, from given.json: 1.png"
    assert [(n.file, n.reason) for n in report.rejected] == [("1.txt", reason), ("captions.json: 1.png", reason)]


def test_what_a_person_wrote_is_never_replaced(workspace, make_zip, small_photos, tmp_path):
    import_sources(workspace, "x", [make_zip({"1.png": small_photos[0], "2.png": small_photos[1]})])
    dataset = Dataset.open(workspace.dataset("x"))
    dataset.write_caption(1, "by hand", author="human")
    dataset.write_caption(2, "by machine", author="joycaption")
    (tmp_path / "c.json").write_text('{"1.png": "imported", "2.png": "imported"}')
    report = import_sources(workspace, "x", [tmp_path / "c.json"])
    assert captions_of(workspace) == {"1.png": "by hand", "2.png": "imported"}
    assert (report.captions, [n.file for n in report.rejected]) == (1, ["c.json: 1.png"])
    assert "a person wrote" in report.rejected[0].reason
    assert [v.text for v in dataset.history(2)] == ["by machine", "imported"]
    (tmp_path / "c.json").write_text('{"1.png": "by hand"}')
    assert import_sources(workspace, "x", [tmp_path / "c.json"]).rejected == []
    assert dataset.picture(1).version == 1


def test_captions_of_a_picture_that_is_there_already_still_arrive(workspace, make_zip, small_photos):
    import_sources(workspace, "x", [make_zip({"old.png": small_photos[0]})])
    report = import_sources(workspace, "x", [make_zip({"new.png": small_photos[0], "new.txt": "the sea"})])
    assert captions_of(workspace) == {"old.png": "the sea"}
    assert [(n.file, n.reason) for n in report.rejected] == [
        ("new.png", "the same picture as old.png, which is in the dataset")
    ]


def test_unusable_captions_are_rows(workspace, make_zip, small_photos):
    members = {
        "1.png": small_photos[0],
        "1.txt": " \n",
        "notes.txt": "remember the milk",
        "broken.json": "{",
        "latin.txt": "Hündchen".encode("latin-1"),
        "long.json": json.dumps({"1.png": "x" * 20_001}),
    }
    report = import_sources(workspace, "x", [make_zip(members)])
    assert {n.file: n.reason for n in report.rejected} == {
        "1.txt": "the caption is empty",
        "notes.txt": "no picture of this name",
        "broken.json": report.rejected[0].reason,
        "latin.txt": "the text is not UTF-8; save it as UTF-8",
        "long.json: 1.png": "the caption is longer than 20,000 characters",
    }
    assert report.rejected[0].reason.startswith("not valid JSON")
    assert captions_of(workspace) == {"1.png": ""}


def test_a_broken_captions_file_given_by_itself_stops_everything(workspace, small_photos, tmp_path):
    (tmp_path / "c.json").write_text('{"1.png": "a", "1.png": "b"}')
    with pytest.raises(DatasetError, match=r"c\.json: not valid JSON \('1\.png' appears twice\)"):
        import_sources(workspace, "x", [small_photos[0], tmp_path / "c.json"])
    assert workspace.dataset_names() == []


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\\0"), min_size=1, max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(captions=st.dictionaries(names.map(str.strip).filter(bool), st.text(min_size=1), min_size=1, max_size=4))
def test_every_caption_is_stored_or_reported(make_zip, small_photos, captions, tmp_path_factory):
    from lora_lightning.workspace import Workspace

    workspace = Workspace.find(tmp_path_factory.mktemp("home"))
    pictures = {f"{name}.png": small_photos[n] for n, name in enumerate(captions)}
    listed = json.dumps({f"{name}.png": text for name, text in captions.items()})
    report = import_sources(workspace, "x", [make_zip({**pictures, "\U0001f600": small_photos[9], "c.json": listed})])
    lost = [note for note in report.rejected if note.file.startswith("c.json: ")]
    assert report.captions + len(lost) == len(captions)
    assert sum(bool(text) for text in captions_of(workspace).values()) == report.captions
