"""A dataset is read again after every change, by whomever, and only then."""

import shutil
import subprocess
import sys

from lora_lightning.datasets import aside, focus, snapshot
from lora_lightning.datasets.store import Dataset


def test_nothing_is_read_again_while_nothing_changes(dataset):
    first = snapshot.take(dataset)
    assert snapshot.take(Dataset(dataset.folder)) is first
    assert first.pictures == dataset.pictures()
    assert first.by_id[2] == dataset.picture(2)


def test_every_change_is_noticed(dataset):
    tokens = [snapshot.take(dataset).token]
    changes = [
        lambda: dataset.write_caption(1, "another", author="human"),
        lambda: dataset.undo(1),
        lambda: focus.move(dataset, 1, 0.2, 0.9),
        lambda: aside.set_aside(dataset, {2: "blurred"}),
        lambda: aside.bring_back(dataset, [2]),
    ]
    for change in changes:
        change()
        now = snapshot.take(dataset)
        tokens.append(now.token)
        assert now.pictures == dataset.pictures()
        assert [*now.pictures, *now.aside] == sorted(now.everything, key=lambda picture: bool(picture.aside))
    assert len(set(tokens)) == len(tokens)


def test_a_change_by_another_process_is_noticed(dataset):
    snapshot.take(dataset)
    code = (
        "import sys; from pathlib import Path; from lora_lightning.datasets.store import Dataset; "
        "Dataset.open(Path(sys.argv[1])).write_caption(1, 'from elsewhere', author='human')"
    )
    subprocess.run([sys.executable, "-c", code, str(dataset.folder)], check=True)
    assert snapshot.take(dataset).by_id[1].caption == "from elsewhere"


def test_a_dataset_made_anew_under_the_same_name_is_another_one(dataset, tmp_path):
    before = snapshot.take(dataset)
    copy = shutil.copytree(dataset.folder, tmp_path / "copy")
    shutil.rmtree(dataset.folder)
    shutil.move(copy, dataset.folder)
    assert snapshot.take(dataset).token != before.token


def test_few_datasets_are_remembered(dataset, tmp_path):
    taken = snapshot.take(dataset)
    for number in range(snapshot.KEPT):
        snapshot.take(Dataset.create(tmp_path / str(number)))
    again = snapshot.take(dataset)
    assert again is not taken
    assert again.pictures == taken.pictures
