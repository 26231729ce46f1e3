"""Checkpoints: whole or not there, and the newest good one is found."""

import logging

import pytest
import torch

from lora_lightning.train.checkpoints import AtomicCheckpointIO, keep_newest, newest, path_of


@pytest.fixture
def saved(tmp_path):
    def save(*steps):
        for step in steps:
            checkpoint = {"global_step": step, "state_dict": {"a": torch.full((300,), float(step))}}
            AtomicCheckpointIO().save_checkpoint(checkpoint, path_of(tmp_path, step))
        return tmp_path

    return save


def test_the_newest_by_step_is_found_and_read(saved):
    found = newest(saved(250, 1000, 500))
    assert found.step == 1000
    assert AtomicCheckpointIO().load_checkpoint(found.path)["state_dict"]["a"][0] == 1000
    assert newest(found.path.parent / "nowhere") is None


@pytest.mark.parametrize("harm", ["flip", "cut", "no manifest", "manifest of another"])
def test_a_damaged_one_is_named_and_the_one_before_it_is_used(saved, harm, caplog):
    folder = saved(250, 500)
    path = path_of(folder, 500)
    data = bytearray(path.read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif harm == "cut":
        path.write_bytes(data[:-7])
    elif harm == "no manifest":
        path.with_suffix(".json").unlink()
    else:
        path.with_suffix(".json").write_text(path_of(folder, 250).with_suffix(".json").read_text())
    with caplog.at_level(logging.WARNING):
        assert newest(folder).step == 250
    assert "0000500.ckpt is damaged" in caplog.text


def test_what_a_killed_save_left_behind_is_swept(saved):
    folder = saved(250)
    (folder / ".0000500.ckpt.abc.tmp").write_bytes(b"half")
    newest(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["0000250.ckpt", "0000250.json"]


def test_a_full_disk_leaves_the_old_one(saved, monkeypatch):
    folder = saved(250)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        saved(500)
    assert newest(folder).step == 250
    assert sorted(path.name for path in folder.iterdir()) == ["0000250.ckpt", "0000250.json"]


def test_only_the_newest_are_kept(saved):
    folder = saved(1, 2, 3, 4)
    keep_newest(folder, 2)
    assert sorted(path.name for path in folder.iterdir()) == [
        "0000003.ckpt", "0000003.json", "0000004.ckpt", "0000004.json",
    ]  # fmt: skip


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"global_step": 1, "state_dict": {"a": Evil()}}, tmp_path / "0000001.ckpt")
    with pytest.raises(Exception, match="Weights only load failed"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "0000001.ckpt")
    assert not (tmp_path / "ran").exists()
