"""Importing real files: what is taken, what is refused, and that every file is accounted for."""

import io
import os
import stat
import struct
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from lora_lightning.__main__ import main
from lora_lightning.datasets import entries, intake, sources, staging
from lora_lightning.datasets.aside import set_aside
from lora_lightning.datasets.images import open_rgb, thumbnail
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import DatasetError, InputError, NameProblem
from lora_lightning.runs.files import Lock


def rejected(report):
    return {note.file: note.reason for note in report.rejected}


def encoded(photo, format, **options):
    buffer = io.BytesIO()
    with Image.open(photo) as image:
        image.convert("RGB").save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def seven(small_photos):
    """The seven suffixes, each a real photograph in that format."""
    formats = {"JPG": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "tiff": "TIFF", "gif": "GIF"}
    return {f"photo {n}.{s}": encoded(small_photos[n], f) for n, (s, f) in enumerate(formats.items())}


def test_a_zip_of_every_format(workspace, make_zip, seven):
    report = import_sources(workspace, "x", [make_zip(seven)])
    assert [note.file for note in report.accepted] == list(seven)
    assert (report.changed, report.rejected, report.captions) == ([], [], 0)
    dataset = Dataset.open(workspace.dataset("x"))
    assert {p.name: dataset.path(p).read_bytes() for p in dataset.pictures()} == seven
    assert [p.file.rsplit(".", 1)[1] for p in sorted(dataset.pictures(), key=lambda p: p.id)] == [
        "jpg", "jpg", "png", "webp", "bmp", "tiff", "gif"
    ]  # fmt: skip
    assert workspace.dataset_names() == ["x"]


def test_a_folder_a_zip_and_files_in_one_import(workspace, make_zip, seven, tmp_path):
    members = list(seven.items())
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / members[0][0]).write_bytes(members[0][1])
    (tmp_path / "deep" / "er" / members[1][0]).write_bytes(members[1][1])
    (tmp_path / members[2][0]).write_bytes(members[2][1])
    given = [tmp_path / "deep", make_zip(dict(members[3:])), tmp_path / members[2][0]]
    report = import_sources(workspace, "x", given)
    assert len(report.accepted) == 7
    assert report.accepted[1].file == "er/photo 1.jpeg"


def test_content_decides_and_not_the_name(workspace, make_zip, seven):
    liar = {"really a png.jpg": seven["photo 2.png"], "no suffix": seven["photo 3.webp"], "text.png": b"I am text"}
    report = import_sources(workspace, "x", [make_zip(liar)])
    assert [note.reason for note in report.accepted] == ["96 x 64 PNG", "96 x 64 WEBP"]
    assert list(rejected(report)) == ["text.png"]


def test_what_is_read_differently_is_listed(workspace, make_zip, small_photos):
    exif = Image.Exif()
    exif[0x0112] = 8
    members = {"plain.png": small_photos[0], "turned.jpg": encoded(small_photos[1], "JPEG", exif=exif)}
    report = import_sources(workspace, "x", [make_zip(members)])
    assert [(n.file, n.reason) for n in report.changed] == [("turned.jpg", "turned upright (EXIF orientation 8)")]
    assert [(n.file, n.reason) for n in report.accepted] == [
        ("plain.png", "96 x 64 PNG"), ("turned.jpg", "64 x 96 JPEG")
    ]  # fmt: skip
    turned = Dataset.open(workspace.dataset("x")).picture(2)
    assert (turned.width, turned.height) == (64, 96)


def test_a_corrupt_picture_among_good_ones_is_a_row(workspace, make_zip, seven):
    corrupt = {
        "cut.jpg": seven["photo 0.JPG"][:900],
        "flipped.png": seven["photo 2.png"][:60] + b"\0" + seven["photo 2.png"][61:],
        "empty.png": b"",
        "page.html": b"<html>",
        "phone.heic": b"\0\0\0\x18ftypheic" + bytes(40),
        "inner.zip": b"PK\x03\x04" + bytes(40),
    }
    report = import_sources(workspace, "x", [make_zip(corrupt | {"good.png": seven["photo 2.png"]})])
    assert [note.file for note in report.accepted] == ["good.png"]
    reasons = rejected(report)
    assert set(reasons) == set(corrupt)
    assert "damaged" in reasons["cut.jpg"]
    assert "damaged" in reasons["flipped.png"]
    assert reasons["empty.png"] == "empty file"
    assert "damaged" in reasons["phone.heic"]
    assert "archive inside" in reasons["inner.zip"]


def test_system_and_hidden_files_are_told_apart(workspace, make_zip, seven):
    junk = ["__MACOSX/._a.jpg", ".DS_Store", "a/Thumbs.db", "desktop.ini", "a/._b.png"]
    members = dict.fromkeys(junk, b"junk") | {".git/x.png": seven["photo 2.png"], "good.png": seven["photo 2.png"]}
    report = import_sources(workspace, "x", [make_zip(members)])
    assert rejected(report) == dict.fromkeys(junk, "system file") | {".git/x.png": "hidden file"}


HOSTILE_NAMES = [
    "../evil.png",
    "../../../../tmp/evil2.png",
    "/abs.png",
    "..\\..\\win.png",
    "C:\\Windows\\drive.png",
    "a/b/c/deep.png",
    "CON.png",
    "nul",
    "\\",
    "trailing. .png",
    "x" * 240 + ".png",
    "line\nbreak\x1b[31m.png",
    "\u202egnp.exe",
    "caf\u00e9.png",
    "cafe\u0301.png",
    "CAFÉ.PNG",
    "表ポあA鷗.png",
]


def test_hostile_names_stay_data(workspace, make_zip, small_photos, tmp_path):
    contents = [encoded(small_photos[n % 14], "PNG", compress_level=n % 9) for n in range(len(HOSTILE_NAMES))]
    source = make_zip(dict(zip(HOSTILE_NAMES, contents, strict=True)))
    before = sorted(path for path in tmp_path.rglob("*"))
    report = import_sources(workspace, "x", [source])
    duplicates = [n for n in report.rejected if n.reason.startswith("the same picture")]
    assert len(report.accepted) + len(duplicates) == len(HOSTILE_NAMES)
    assert len(report.rejected) == len(duplicates)
    inside = {path for path in tmp_path.rglob("*") if workspace.home in [path, *path.parents]}
    assert sorted(set(tmp_path.rglob("*")) - inside) == before
    files = {path.name for path in (workspace.dataset("x") / "images").iterdir()}
    assert all(name.isascii() and name.startswith("0000") for name in files)
    for note in report.accepted:
        assert "\n" not in note.file
        assert "\x1b" not in note.file
        assert "\u202e" not in note.file
    folded = [p.name.casefold() for p in Dataset.open(workspace.dataset("x")).pictures()]
    assert len(set(folded)) == len(folded)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_equal_names_are_both_kept(workspace, small_photos, tmp_path):
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, photo in zip(["a.png", "b/a.png", "A.PNG", "a.png"], small_photos, strict=False):
            archive.write(photo, name)
    report = import_sources(workspace, "x", [path])
    assert [n.file for n in report.accepted] == ["a.png", "b/a.png", "A.PNG", "a.png"]
    assert report.accepted[1].reason == "96 x 64 PNG; called 'a (2).png' because the name was taken"
    names = {p.id: p.name for p in Dataset.open(workspace.dataset("x")).pictures()}
    assert names == {1: "a.png", 2: "a (2).png", 3: "A (3).PNG", 4: "a (4).png"}


def test_names_of_macos_and_of_windows(workspace, small_photos, tmp_path):
    """macOS writes UTF-8 without its flag; Python then reads cp437. Windows tools may write backslashes."""
    path = tmp_path / "mac.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("____ mac.png", small_photos[0].read_bytes())
        archive.writestr("set\\win.png", small_photos[1].read_bytes())
    path.write_bytes(path.read_bytes().replace(b"____ mac.png", "éü mac.png".encode()))
    assert [p.name for p in _imported(workspace, path)] == ["win.png", "éü mac.png"]


def _imported(workspace, *paths):
    import_sources(workspace, "x", paths)
    return Dataset.open(workspace.dataset("x")).pictures()


def test_equal_bytes_are_stored_once(workspace, make_zip, small_photos):
    members = {"a.png": small_photos[0], "copy.png": small_photos[0], "b.png": small_photos[1]}
    report = import_sources(workspace, "x", [make_zip(members)])
    assert rejected(report) == {"copy.png": "the same picture as a.png, which is in the dataset"}
    again = import_sources(workspace, "x", [make_zip(members | {"c.png": small_photos[2]})])
    assert [n.file for n in again.accepted] == ["c.png"]
    assert list(rejected(again)) == ["a.png", "copy.png", "b.png"]
    dataset = Dataset.open(workspace.dataset("x"))
    assert [p.id for p in sorted(dataset.pictures(), key=lambda p: p.id)] == [1, 2, 3]
    assert len(list(dataset.images.iterdir())) == 3


def link(archive, name, target):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, target)


def test_links_are_not_followed(workspace, small_photos, tmp_path):
    path = tmp_path / "links.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link(archive, "passwd.png", "/etc/passwd")
        archive.writestr("good.png", small_photos[0].read_bytes())
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "ring").symlink_to(folder)
    (folder / "broken.png").symlink_to(tmp_path / "nothing")
    (folder / "linked.png").symlink_to(small_photos[1])
    os.mkfifo(folder / "pipe.png")
    report = import_sources(workspace, "x", [path, folder])
    assert [n.file for n in report.accepted] == ["good.png", "linked.png"]
    assert rejected(report)["passwd.png"] == "a link or a device, not a file"
    assert {"ring", "broken.png", "pipe.png"} <= set(rejected(report))


def test_bombs_are_refused_and_their_neighbours_taken(workspace, make_zip, small_photos):
    members = {"bomb.bmp": b"BM" + bytes(4 * 2**20), "good.png": small_photos[0], "1.txt": b" " * 900_000}
    report = import_sources(workspace, "x", [make_zip(members)])
    assert rejected(report)["bomb.bmp"] == "unpacks to more than 200 times its size: a ZIP bomb"
    assert rejected(report)["1.txt"] == "the caption is empty"  # small files may pack well
    assert [n.file for n in report.accepted] == ["good.png"]


def test_an_entry_that_lies_about_its_size(workspace, make_zip, small_photos):
    source = make_zip({"good.png": small_photos[0], "lie.png": small_photos[1]})
    data = bytearray(source.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 10)  # the directory says 10 bytes unpacked
    source.write_bytes(bytes(data))
    report = import_sources(workspace, "x", [source])
    assert "damaged inside the ZIP" in rejected(report)["lie.png"]
    assert len(report.accepted) == 1


def test_limits_are_named(workspace, make_zip, small_photos, monkeypatch):
    source = make_zip({f"{n}.png": small_photos[n] for n in range(5)})
    for module in (entries, sources):
        monkeypatch.setattr(module, "MAX_ENTRIES", 4)
    with pytest.raises(DatasetError, match="5 files are too many; at most 4"):
        import_sources(workspace, "x", [source])
    monkeypatch.setattr(sources, "MAX_ENTRIES", 100)
    monkeypatch.setattr(staging, "MAX_TOTAL_BYTES", 20_000)
    with pytest.raises(DatasetError, match="larger than"):
        import_sources(workspace, "x", [source])
    monkeypatch.undo()
    monkeypatch.setattr(intake, "MAX_TEXTS_BYTES", 100)
    with pytest.raises(DatasetError, match="captions are larger"):
        import_sources(workspace, "x", [make_zip({"a.png": small_photos[0], "a.txt": "x" * 101}, "texts.zip")])
    assert workspace.dataset_names() == []


def test_a_file_over_the_limit_is_a_row(workspace, make_zip, small_photos, monkeypatch):
    monkeypatch.setattr(entries, "MAX_FILE_BYTES", 2**20)
    monkeypatch.setattr(entries.Entry.chunks, "__defaults__", (2**20,))
    noise = np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "BMP")
    report = import_sources(workspace, "x", [make_zip({"big.bmp": buffer.getvalue(), "ok.png": small_photos[0]})])
    assert rejected(report) == {"big.bmp": "larger than 1 MiB"}


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("empty zip", "is an empty ZIP"),
        ("only folders", "is an empty ZIP"),
        ("not a zip", "is not a ZIP, or is damaged"),
        ("cut zip", "is not a ZIP, or is damaged"),
        ("encrypted", "is encrypted"),
        ("no pictures", "no picture in pictures.zip that can be used"),
        ("only junk", "no picture in pictures.zip that can be used"),
        ("missing", "nothing to import at"),
        ("empty folder", "is empty"),
        ("folder without pictures", "no picture in notes that can be used"),
        ("no sources", "nothing was given"),
        ("one file that is no picture", "no picture in letter.pdf that can be used"),
    ],
)
def test_wrong_input_is_an_error_and_changes_nothing(
    workspace, make_zip, small_photos, tmp_path, case, message, existing
):
    if existing:
        import_sources(workspace, "x", [small_photos[13]])
    before = snapshot(workspace)
    paths = {
        "empty zip": lambda: [make_zip({})],
        "only folders": lambda: [make_zip({"a/": b""})],
        "not a zip": lambda: [write(tmp_path / "pictures.zip", b"hello")],
        "cut zip": lambda: [write(tmp_path / "cut.zip", make_zip({"a.png": small_photos[0]}).read_bytes()[:2000])],
        "encrypted": lambda: [encrypt(make_zip({"a.png": small_photos[0]}))],
        "no pictures": lambda: [make_zip({"a.pdf": b"%PDF", "b.mp4": b"video"})],
        "only junk": lambda: [make_zip({"__MACOSX/._a.png": b"x"})],
        "missing": lambda: [tmp_path / "nothing.zip"],
        "empty folder": lambda: [folder(tmp_path / "empty", {})],
        "folder without pictures": lambda: [folder(tmp_path / "notes", {"a.pdf": b"%PDF"})],
        "no sources": lambda: [],
        "one file that is no picture": lambda: [write(tmp_path / "letter.pdf", b"%PDF")],
    }[case]()
    with pytest.raises(DatasetError, match=message) as error:
        import_sources(workspace, "x", paths)
    assert error.value.hint
    assert error.value.exit_code == 2
    assert snapshot(workspace) == before


@pytest.mark.parametrize("members", [{"a.png": b"\x89PNG\r\n\x1a\n broken"}, {"c.json": b'{"a.png": "x"}'}])
def test_a_new_dataset_needs_one_good_picture(workspace, make_zip, members):
    with pytest.raises(DatasetError, match="no picture"):
        import_sources(workspace, "x", [make_zip(members)])
    assert snapshot(workspace) == {}


def test_captions_alone_are_enough_for_an_existing_dataset(workspace, make_zip, small_photos):
    import_sources(workspace, "x", [small_photos[0]])
    report = import_sources(workspace, "x", [make_zip({f"{small_photos[0].stem}.txt": "a face", "other.txt": "lost"})])
    assert (report.captions, rejected(report)) == (1, {"other.txt": "no picture of this name"})


@pytest.mark.parametrize("name", ["../x", "", ".", "a/b", "con", "a" * 65, "ä"])
def test_a_bad_name_is_refused_first(workspace, small_photos, name):
    with pytest.raises(NameProblem, match="dataset name"):
        import_sources(workspace, name, [small_photos[0]])
    assert not workspace.home.exists()


def test_a_folder_in_the_way_is_left_alone(workspace, small_photos):
    write(folder(workspace.dataset("x"), {}) / "notes.txt", b"mine")
    with pytest.raises(DatasetError, match="exists and is no dataset"):
        import_sources(workspace, "x", [small_photos[0]])
    assert (workspace.dataset("x") / "notes.txt").read_bytes() == b"mine"


def test_two_imports_into_one_dataset_do_not_meet(workspace, small_photos):
    lock = Lock(workspace.datasets / ".importing" / ".x")
    assert lock.acquire()
    with pytest.raises(DatasetError, match="another import into 'x' is at work"):
        import_sources(workspace, "x", [small_photos[0]])
    lock.release()
    import_sources(workspace, "x", [small_photos[0]])


def test_imports_into_different_datasets_run_at_once(workspace, small_photos):
    workers = [
        threading.Thread(target=import_sources, args=(workspace, f"set-{n}", small_photos[n : n + 4])) for n in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert workspace.dataset_names() == [f"set-{n}" for n in range(4)]
    assert all(len(Dataset.open(workspace.dataset(name)).pictures()) == 4 for name in workspace.dataset_names())


def test_an_import_never_touches_what_is_there(workspace, make_zip, small_photos):
    import_sources(workspace, "x", [make_zip({"a.png": small_photos[0], "b.png": small_photos[1]})])
    dataset = Dataset.open(workspace.dataset("x"))
    set_aside(dataset, {1: "blurred"})
    (dataset.images / "mine.png").write_bytes(b"put here by hand")
    (dataset.images / "000009.0123abcd.png").write_bytes(b"left by a killed import")
    report = import_sources(workspace, "x", [make_zip({"a.png": small_photos[0], "c.png": small_photos[2]}, "b.zip")])
    assert rejected(report) == {"a.png": "the same picture as a.png, which is set aside"}
    files = {picture.file for picture in dataset.pictures(include_aside=True)}
    assert len(files) == 3
    assert {path.name for path in dataset.images.iterdir()} == files | {"mine.png"}
    assert dataset.statistics().bytes == sum(dataset.path(p).stat().st_size for p in dataset.pictures())


def test_captions_are_written_while_imports_work(workspace, small_photos):
    import_sources(workspace, "x", [small_photos[0]])
    dataset = Dataset.open(workspace.dataset("x"))
    worker = threading.Thread(target=lambda: [dataset.write_caption(1, f"{n}", author="human") for n in range(40)])
    worker.start()
    for photo in small_photos[1:6]:
        import_sources(workspace, "x", [photo])
    worker.join()
    assert [version.text for version in dataset.history(1)] == [f"{n}" for n in range(40)]
    assert len(dataset.pictures()) == 6


def test_the_report_as_json(workspace, make_zip, small_photos):
    report = import_sources(workspace, "x", [make_zip({"a.png": small_photos[0], "b.png": b""})])
    assert report.as_dict() == {
        "accepted": [{"file": "a.png", "reason": "96 x 64 PNG"}],
        "changed": [],
        "rejected": [{"file": "b.png", "reason": "empty file"}],
        "captions": 0,
    }


def test_real_photographs_come_through_with_their_pixels(workspace, photos):
    report = import_sources(workspace, "real", photos)
    assert len(report.accepted) == len(photos)
    dataset = Dataset.open(workspace.dataset("real"))
    for picture in dataset.pictures():
        original = next(photo for photo in photos if photo.name == picture.name)
        assert open_rgb(dataset.path(picture)).tobytes() == open_rgb(original).tobytes()


def write(path, data):
    path.write_bytes(data)
    return path


def folder(path, files):
    path.mkdir(parents=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def encrypt(path):
    """Set the encryption bit of every entry, as a ZIP with a password has."""
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        data[at + offset] |= 1
    path.write_bytes(bytes(data))
    return path


def snapshot(workspace):
    """Every file of the datasets with its bytes, without the locks of imports."""
    return {
        path: path.read_bytes()
        for path in sorted(workspace.datasets.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def test_transparency_is_laid_on_the_colour_that_the_import_chose(workspace, make_zip, small_photos):
    buffer = io.BytesIO()
    Image.new("RGBA", (40, 30), (255, 0, 0, 0)).save(buffer, "PNG")
    members = {"clear.png": buffer.getvalue(), "plain.png": small_photos[0]}
    report = import_sources(workspace, "x", [make_zip(members)], background="navy")
    assert [note.reason for note in report.changed] == ["transparency laid on #000080"]
    dataset = Dataset.open(workspace.dataset("x"))
    first, second = dataset.pictures()
    assert first.file.endswith(".on-000080.png")
    assert ".on-" not in second.file
    assert open_rgb(dataset.path(first)).getcolors() == [(1200, (0, 0, 128))]
    assert dataset.path(first).read_bytes() == members["clear.png"]
    with Image.open(thumbnail(dataset.folder, first.file)) as small:
        assert small.getpixel((9, 9))[2] > 100
    import_sources(workspace, "x", [make_zip({"new.png": small_photos[1]}, "new.zip")])  # a sweep leaves it alone
    assert dataset.path(first).is_file()
    with pytest.raises(InputError, match="'blau' is no colour"):
        import_sources(workspace, "y", [make_zip(members)], background="blau")


def test_the_command_chooses_the_background_too(workspace, tmp_path, capsys):
    Image.new("RGBA", (40, 30), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    words = ["import", "x", str(tmp_path / "clear.png"), "--background", "#102030", "--home", str(workspace.home)]
    assert main(words) == 0
    assert "transparency laid on #102030" in capsys.readouterr().out
    dataset = Dataset.open(workspace.dataset("x"))
    assert open_rgb(dataset.path(dataset.picture(1))).getpixel((0, 0)) == (16, 32, 48)
