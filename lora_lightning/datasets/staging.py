"""Where an import works until all is well: beside the datasets, on the same disk, and out of everybody's sight.

    datasets/.importing/.NAME   lock, held while an import into NAME works
    datasets/.importing/NAME/   its files; whatever a killed import left here goes away with the next one

A crash at any point leaves the dataset as it was: pictures are renamed into it before the one transaction that makes
them known, and picture files that no row knows are swept away by the next import.
"""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from lora_lightning.datasets.entries import HEAD_BYTES, Entry, Unusable, check_head
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import DatasetError, DiskFull
from lora_lightning.runs.files import Lock
from lora_lightning.workspace import Workspace

MAX_TOTAL_BYTES = 64 * 2**30
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OWN_FILE = re.compile(r"\d{6,}\.[0-9a-f]{8}(\.on-[0-9a-f]{6})?\.[a-z]+")


@dataclass(frozen=True)
class Staged:
    """The exact bytes of one file, kept until it is known whether they are wanted."""

    path: Path
    sha256: str


class Staging:
    """The working folder of one import."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.target = workspace.dataset(name)
        self._area = workspace.datasets / ".importing"
        self._folder = self._area / name
        self._total_bytes = 0
        self._count = 0

    @contextmanager
    def opened(self) -> Iterator["Staging"]:
        """Hold the lock, and leave nothing behind.

        Raises:
            DatasetError: another import into this dataset is at work.
            DiskFull: no space left, whatever was being written.
        """
        name = self.target.name
        lock = Lock(self._area / f".{name}")
        with _full_disk_named(name):
            if not lock.acquire():
                raise DatasetError(f"another import into {name!r} is at work", "Wait until it has ended.")
            try:
                self._remove_leftovers()
                self._folder.mkdir()
                yield self
            finally:
                shutil.rmtree(self._folder, ignore_errors=True)
                lock.release()

    def dataset(self) -> Dataset:
        """The dataset to add to: the one there is, or a new one that nobody sees before `publish`."""
        if (self.target / "dataset.sqlite").is_file():
            dataset = Dataset.open(self.target)
            sweep(dataset)
            return dataset
        if self.target.exists() and (not self.target.is_dir() or any(self.target.iterdir())):
            raise DatasetError(f"{self.target} exists and is no dataset", "Choose another name, or move it away.")
        return Dataset.create(self._folder / self.target.name)

    def take(self, entry: Entry) -> Staged:
        """Copy a file that begins as a picture does.

        Raises:
            Unusable: it is no picture, damaged or too large.
            DatasetError: all files together are too large.
        """
        pieces = entry.chunks()
        first = next(pieces, b"")
        check_head(first[:HEAD_BYTES])
        self._count += 1
        path = self._folder / f"incoming-{self._count}"
        digest = hashlib.sha256()
        try:
            with path.open("xb") as file:
                for piece in chain([first], pieces):
                    digest.update(piece)
                    file.write(piece)
                    self._total_bytes += len(piece)
                    if self._total_bytes > MAX_TOTAL_BYTES:
                        limit = f"{MAX_TOTAL_BYTES // 2**30} GiB"
                        raise DatasetError(f"the pictures are larger than {limit} together", "Import them in parts.")
        except Unusable:
            path.unlink()
            raise
        return Staged(path, digest.hexdigest())

    def publish(self, dataset: Dataset) -> None:
        """Make a new dataset visible, whole; nothing to do for one that was there."""
        if dataset.folder != self.target:
            sync(dataset.folder)
            os.rename(dataset.folder, self.target)
            sync(self.target.parent)

    def _remove_leftovers(self) -> None:
        """Remove what killed imports left, this one's and those of others that nobody holds."""
        shutil.rmtree(self._folder, ignore_errors=True)
        for folder in self._area.iterdir():
            other = Lock(self._area / f".{folder.name}")
            if folder.is_dir() and folder != self._folder and other.acquire(timeout_seconds=0):
                shutil.rmtree(folder, ignore_errors=True)
                other.release()


def sync(path: Path) -> None:
    """Bring a file or the list of a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(dataset: Dataset) -> None:
    """Remove picture files of ours that no row knows: a killed import left them. The caller holds the import lock."""
    known = {picture.file for picture in dataset.pictures(include_aside=True)}
    for path in list(dataset.images.iterdir()):
        if path.name not in known and _OWN_FILE.fullmatch(path.name):
            path.unlink()


@contextmanager
def _full_disk_named(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, DiskFull) as error:
        if isinstance(error, OSError) and error.errno not in _FULL:
            raise
        raise DiskFull(
            f"no space left on the disk while importing into {name!r}; nothing was imported",
            "Free some space, then run the same command again.",
        ) from error
