"""What a dataset holds now, read again only after somebody changed it: a page of 10,000 pictures asks at each click.

SQLite's `data_version` differs from one question to the next when another connection has committed in between; every
operation of ours has a connection of its own, so one that only watches notices each of them, in any process.
"""

import sqlite3
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock

from lora_lightning.datasets import alternates
from lora_lightning.datasets.alternates import Alternate
from lora_lightning.datasets.kinds import CAPTION
from lora_lightning.datasets.store import Dataset, Picture

KEPT = 2
"""Datasets that are remembered; 10,000 pictures with captions take some 20 MB."""


@dataclass(frozen=True)
class Snapshot:
    """A dataset at one moment.

    Attributes:
        dataset: whose pictures they are.
        everything: every picture in natural order, those set aside too.
        token: another one means that something may have changed.
    """

    dataset: Dataset
    everything: list[Picture]
    token: str

    @cached_property
    def pictures(self) -> list[Picture]:
        """Those in use."""
        return [picture for picture in self.everything if not picture.aside]

    @cached_property
    def aside(self) -> list[Picture]:
        """Those set aside."""
        return [picture for picture in self.everything if picture.aside]

    @cached_property
    def _of_kind(self) -> dict[str, list[Picture]]:
        return {CAPTION: self.pictures}

    def of(self, kind: str) -> list[Picture]:
        """Those in use, with their captions of a kind."""
        if kind not in self._of_kind:
            self._of_kind[kind] = self.dataset.pictures(kind=kind)
        return self._of_kind[kind]

    @cached_property
    def alternates(self) -> dict[int, dict[str, Alternate]]:
        """Further captions by picture number and kind."""
        return alternates.current(self.dataset)

    @cached_property
    def by_id(self) -> dict[int, Picture]:
        """Every picture by number."""
        return {picture.id: picture for picture in self.everything}


@dataclass
class _Watch:
    """A connection that only looks whether others have written; `file` tells a dataset from one made anew."""

    db: sqlite3.Connection
    file: tuple[int, int]
    last: Snapshot | None = field(default=None)


_watches: OrderedDict[Path, _Watch] = OrderedDict()
_lock = Lock()


def take(dataset: Dataset) -> Snapshot:
    """The dataset as it is now.

    Raises:
        DatasetError: it is gone or damaged.
    """
    with _lock:
        watch = _watch(dataset)
        if watch is None:
            return Snapshot(dataset, dataset.pictures(include_aside=True), "")
        (version,) = watch.db.execute("PRAGMA data_version").fetchone()
        token = f"{dataset.folder}/{watch.file}/{version}"
        # Asked before reading: what is written meanwhile makes the next question answer differently.
        if watch.last is None or watch.last.token != token:
            watch.last = Snapshot(dataset, dataset.pictures(include_aside=True), token)
        return watch.last


def _watch(dataset: Dataset) -> _Watch | None:
    """The watch over a dataset; None for one that cannot be opened, which reading it will explain."""
    path = dataset.database
    try:
        stat = path.stat()
        file = (stat.st_dev, stat.st_ino)
        watch = _watches.pop(path, None)
        if watch is None or watch.file != file:
            if watch is not None:
                watch.db.close()
            watch = _Watch(
                sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False), file
            )
            watch.db.execute("PRAGMA data_version").fetchone()
    except (OSError, sqlite3.DatabaseError):
        return None
    _watches[path] = watch
    while len(_watches) > KEPT:
        _watches.popitem(last=False)[1].db.close()
    return watch
