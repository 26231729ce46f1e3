import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_lightning.datasets import schema
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.datasets.summary import match_table
from lora_lightning.errors import CaptionConflict, DatasetError, DiskFull, JobError


def test_a_missing_dataset_is_named_with_the_way_out(workspace):
    with pytest.raises(DatasetError, match="no dataset 'nope'") as error:
        Dataset.open(workspace.dataset("nope"))
    assert "import nope" in error.value.hint
    assert not workspace.dataset("nope").exists()


def test_originals_are_kept_byte_for_byte(dataset, photos):
    for picture, photo in zip(sorted(dataset.pictures(), key=lambda p: p.id), photos[:3], strict=True):
        assert dataset.path(picture).read_bytes() == photo.read_bytes()
        assert picture.name == photo.name
        assert picture.file == f"{picture.id:06d}.{picture.sha256[:8]}.png"


def test_each_change_is_a_version_that_says_who_and_how(dataset):
    dataset.write_caption(1, "an  astronaut\r\nwaves", author="joycaption", details={"prompt": "Describe", "seed": 3})
    dataset.write_caption(1, "MYSTYLE, an astronaut", author="human")
    assert [(v.version, v.text, v.author, v.details) for v in dataset.history(1)] == [
        (1, "an astronaut smiles", "import", {}),
        (2, "an  astronaut waves", "joycaption", {"prompt": "Describe", "seed": 3}),
        (3, "MYSTYLE, an astronaut", "human", {}),
    ]
    picture = dataset.picture(1)
    assert (picture.caption, picture.version, picture.author) == ("MYSTYLE, an astronaut", 3, "human")


def test_saving_the_same_again_makes_no_version(dataset):
    dataset.write_caption(1, "same", author="human")
    assert dataset.write_caption(1, " same\n", author="human").version == 2
    assert dataset.write_caption(1, "same", author="joycaption").version == 3


def test_undo_goes_further_back_each_time_and_never_destroys(dataset):
    dataset.write_caption(1, "two", author="joycaption")
    dataset.write_caption(1, "three", author="human")
    assert (dataset.undo(1).caption, dataset.picture(1).author) == ("two", "joycaption")
    assert dataset.undo(1).caption == "an astronaut smiles"
    assert (dataset.undo(1).caption, dataset.picture(1).author) == ("", "")
    with pytest.raises(DatasetError, match="no earlier caption"):
        dataset.undo(1)
    assert [v.text for v in dataset.history(1)] == [
        "an astronaut smiles", "two", "three", "two", "an astronaut smiles", ""
    ]  # fmt: skip


def test_undo_after_an_edit_on_top_of_an_undo(dataset):
    dataset.write_caption(1, "two", author="human")
    dataset.undo(1)
    dataset.write_caption(1, "three", author="human")
    assert dataset.undo(1).caption == "an astronaut smiles"
    assert dataset.undo(1).caption == ""


def test_a_caption_that_changed_in_between_is_a_conflict_that_shows_it(dataset):
    seen = dataset.picture(1).version
    dataset.write_caption(1, "from another tab", author="human", expected_version=seen)
    with pytest.raises(CaptionConflict) as error:
        dataset.write_caption(1, "mine", author="human", expected_version=seen)
    assert error.value.current == "from another tab"
    assert dataset.picture(1).caption == "from another tab"


def test_versions_cannot_be_altered_even_with_sql(dataset):
    file = dataset.folder / "dataset.sqlite"
    for statement in ("UPDATE captions SET text = 'x'", "DELETE FROM captions"):
        with pytest.raises(sqlite3.IntegrityError, match="caption version"), schema.transaction(file) as db:
            db.execute(statement)
    assert dataset.history(1)[0].text == "an astronaut smiles"


def test_an_unknown_picture_is_an_error(dataset):
    for ask in (dataset.picture, dataset.undo, lambda id: dataset.write_caption(id, "x", author="human")):
        with pytest.raises(DatasetError, match="no picture number 99"):
            ask(99)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(text=st.text(st.characters()))
def test_any_text_can_be_a_caption(dataset, text):
    stored = dataset.write_caption(2, text, author="human")
    assert dataset.picture(2) == stored
    assert "\n" not in stored.caption


def test_threads_write_at_once_and_every_version_survives(dataset):
    def write(n):
        dataset.write_caption(2, f"caption {n}", author=f"thread {n % 4}")
        return len(dataset.pictures())

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(write, range(60))) == {3}
    history = dataset.history(2)
    assert [version.version for version in history] == list(range(1, 61))
    assert {version.text for version in history} == {f"caption {n}" for n in range(60)}


INCREMENT = """
import sys
from pathlib import Path
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import CaptionConflict
dataset, done, conflicts = Dataset.open(Path(sys.argv[1])), 0, 0
while done < 40:
    seen = dataset.picture(3)
    try:
        dataset.write_caption(3, str(int(seen.caption or 0) + 1), author="human", expected_version=seen.version)
        done += 1
    except CaptionConflict:
        conflicts += 1
print(conflicts)
"""


def test_processes_that_compare_and_set_lose_no_update(dataset):
    command = [sys.executable, "-c", INCREMENT, str(dataset.folder)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    conflicts = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert dataset.picture(3).caption == "80"
    assert [v.text for v in dataset.history(3)] == [str(n) for n in range(1, 81)]
    assert sum(conflicts) >= 0


def test_a_dataset_of_another_schema_is_refused(dataset):
    with schema.connection(dataset.folder / "dataset.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(DatasetError, match="schema 99"):
        Dataset.open(dataset.folder)


def test_a_damaged_dataset_is_named(dataset):
    (dataset.folder / "dataset.sqlite").write_bytes(b"not a database, " * 400)
    with pytest.raises(DatasetError, match="damaged"):
        Dataset.open(dataset.folder)


def fill(file):
    """Meet SQLite's own SQLITE_FULL."""
    with schema.transaction(file) as db:
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        db.execute("INSERT INTO captions VALUES (1, 2, ?, 'human', '{}', 0)", ("x" * 100_000,))


def test_a_full_disk_and_a_lock_are_explained(dataset, monkeypatch):
    file = dataset.folder / "dataset.sqlite"
    with pytest.raises(DiskFull, match="no space left"):
        fill(file)
    assert len(dataset.history(1)) == 1
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.1)
    with schema.transaction(file), pytest.raises(JobError, match="stayed locked"):
        dataset.write_caption(1, "x", author="human")


def test_statistics_and_match_table(dataset, photos):
    figures = dataset.statistics()
    assert (figures.pictures, figures.captioned, figures.authors) == (3, 1, {"import": 1})
    assert (figures.smallest_side, figures.largest_side, figures.mean_side) == (512, 512, 512)
    assert figures.mean_megapixels == pytest.approx(0.262144)
    assert (figures.formats, figures.mean_caption_words) == ({"png": 3}, 3)
    assert figures.bytes == sum(photo.stat().st_size for photo in photos[:3])
    rows = match_table(dataset)
    assert [(row.name, row.caption, row.matched) for row in rows] == [
        ("astronaut.png", "an astronaut smiles", True), ("brick.png", "", False), ("camera.png", "", False)
    ]  # fmt: skip


def test_pictures_come_in_natural_order(workspace, small_photos, tmp_path):
    for name, photo in zip(["10.png", "9.png", "2.png"], small_photos, strict=False):
        (tmp_path / name).write_bytes(photo.read_bytes())
    import_sources(workspace, "counted", [tmp_path / "10.png", tmp_path / "9.png", tmp_path / "2.png"])
    assert [p.name for p in Dataset.open(workspace.dataset("counted")).pictures()] == ["2.png", "9.png", "10.png"]
