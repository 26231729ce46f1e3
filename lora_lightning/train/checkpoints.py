"""Checkpoints that are whole or not there: the file is synced before its manifest, which holds its hash, appears.

    checkpoints/  000250.ckpt  000250.json {"step", "sha256"}

Lightning's own save writes to $TMPDIR and moves, which is a copy between file systems and can be cut in half.
"""

import hashlib
import io
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from lora_lightning.runs.files import read_json, write_atomic, write_json

log = logging.getLogger("lora_lightning")
SUFFIX = ".ckpt"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is valid: its content has the hash that its manifest names."""

    path: Path
    step: int


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's way in and out."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the checkpoint, then its manifest."""
        path = Path(path)
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        data = buffer.getbuffer()
        write_atomic(path, lambda file: file.write(data))
        manifest = {"step": checkpoint["global_step"], "sha256": hashlib.sha256(data).hexdigest()}
        write_json(_manifest(path), manifest)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read tensors and plain values only: a checkpoint must not be able to run code."""
        loaded: dict[str, Any] = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        return loaded

    def remove_checkpoint(self, path: Any) -> None:
        """Remove it, the manifest first."""
        _manifest(Path(path)).unlink(missing_ok=True)
        Path(path).unlink(missing_ok=True)


def newest(folder: Path) -> Checkpoint | None:
    """The valid checkpoint of the highest step; damaged ones are named in the log and passed over."""
    for stray in folder.glob(".*.tmp"):
        stray.unlink(missing_ok=True)
    for path in sorted(folder.glob(f"*{SUFFIX}"), reverse=True):
        if _valid(path):
            return Checkpoint(path, int(path.stem))
        log.warning("checkpoint %s is damaged or incomplete; using the one before it", path.name)
    return None


def find(folder: Path, step: int) -> Checkpoint | None:
    """The checkpoint of a step, when it is there and valid."""
    path = path_of(folder, step)
    return Checkpoint(path, step) if path.is_file() and _valid(path) else None


def steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint, valid or not."""
    return sorted(int(path.stem) for path in folder.glob(f"*{SUFFIX}"))


def keep_newest(folder: Path, count: int, spare: Collection[int] = ()) -> None:
    """Remove all but the newest few, and those of the steps to spare."""
    for step in steps(folder)[:-count]:
        if step not in spare:
            AtomicCheckpointIO().remove_checkpoint(path_of(folder, step))


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies; names sort by step."""
    return folder / f"{step:07d}{SUFFIX}"


def _valid(path: Path) -> bool:
    manifest = read_json(_manifest(path))
    if manifest.get("step") != int(path.stem):
        return False
    with path.open("rb") as file:
        return bool(hashlib.file_digest(file, "sha256").hexdigest() == manifest.get("sha256"))


def _manifest(path: Path) -> Path:
    return path.with_suffix(".json")
