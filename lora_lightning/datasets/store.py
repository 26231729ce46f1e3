"""A dataset: pictures and their captions in one SQLite file beside the untouched originals.

    DATASET/  dataset.sqlite  images/000001.3fa9c2d1.jpg ...  thumbs/

Captions are append-only: each change is a new version that says who wrote it, how and when.
"""

import functools
import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lora_lightning.datasets import kinds, schema
from lora_lightning.datasets.captions import Claim
from lora_lightning.datasets.kinds import CAPTION
from lora_lightning.datasets.names import natural_order, one_line
from lora_lightning.datasets.records import CaptionVersion, Picture
from lora_lightning.datasets.summary import Statistics, summarize
from lora_lightning.errors import CaptionConflict, DatasetError

__all__ = ["HUMAN", "IMPORT", "CaptionVersion", "Dataset", "Picture"]

HUMAN = "human"
IMPORT = "import"
_order = functools.lru_cache(2**16)(natural_order)  # a page of 10,000 pictures sorts them at each click

_CURRENT = """
SELECT p.id, p.file, p.name, p.sha256, p.width, p.height,
       coalesce(c.text, '') AS caption, coalesce(c.version, 0) AS version, coalesce(c.author, '') AS author,
       coalesce(a.reason, '') AS aside, coalesce(f.x, 0.5) AS focus_x, coalesce(f.y, 0.5) AS focus_y,
       '{kind}' AS kind
FROM pictures p
LEFT JOIN aside a ON a.picture = p.id
LEFT JOIN focus f ON f.picture = p.id
LEFT JOIN {table} c ON c.picture = p.id AND c.version = (SELECT max(version) FROM {table} WHERE picture = p.id)
"""


class Dataset:
    """One dataset on disk; safe to use from several threads and processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.images = folder / "images"
        self.database = folder / "dataset.sqlite"

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """A dataset that exists.

        Raises:
            DatasetError: there is none, or it cannot be read; the message names it.
        """
        dataset = cls(folder)
        if not dataset.database.is_file():
            raise DatasetError(
                f"there is no dataset {folder.name!r} in {folder.parent}",
                f"Make it with `python -m lora_lightning import {folder.name} PICTURES`.",
            )
        schema.upgrade(dataset.database)
        return dataset

    @classmethod
    def create(cls, folder: Path) -> "Dataset":
        """An empty dataset in a folder that does not exist yet."""
        dataset = cls(folder)
        dataset.images.mkdir(parents=True)
        schema.create(dataset.database)
        return dataset

    def pictures(self, *, include_aside: bool = False, kind: str = CAPTION) -> list[Picture]:
        """Every picture in use, in the natural order of its original name; on request also those set aside.

        Args:
            include_aside: whether to give those set aside too.
            kind: of caption that they come with.

        Raises:
            InputError: the kind cannot be a name.
        """
        only = "" if include_aside else "WHERE a.reason IS NULL"
        with schema.connection(self.database) as db:
            found = [Picture(*row) for row in db.execute(f"{_current(kind)} {only}")]
        return sorted(found, key=lambda picture: (_order(picture.name), picture.id))

    def picture(self, id: int, kind: str = CAPTION) -> Picture:
        """One picture with its caption of a kind.

        Raises:
            DatasetError: there is none of that number.
            InputError: the kind cannot be a name.
        """
        with schema.connection(self.database) as db:
            return self._current(db, id, kind)

    def path(self, picture: Picture) -> Path:
        """The untouched original."""
        return self.images / picture.file

    def write_caption(
        self,
        id: int,
        text: str,
        *,
        author: str,
        details: Mapping[str, object] | None = None,
        expected_version: int | None = None,
        kind: str = CAPTION,
    ) -> Picture:
        """Store a new version of a caption, as one line; writing the same again changes nothing.

        Args:
            id: of the picture.
            text: line breaks become spaces.
            author: "human" or the captioner's name.
            details: how it was made, as plain JSON values: prompt, parameters, seed.
            expected_version: the version that the writer has seen (compare-and-set).
            kind: of caption: "caption", "short", "tags" or a name of one's own.

        Raises:
            CaptionConflict: somebody else wrote in between; it carries the text stored now.
            DatasetError: there is no such picture.
            InputError: the kind cannot be a name.
        """
        with schema.transaction(self.database) as db:
            before = self._current(db, id, kind)
            if expected_version is not None and before.version != expected_version:
                what = kind if kind == CAPTION else f"{kind} caption"
                raise CaptionConflict(f"the {what} of {before.name} was changed in the meantime", before.caption)
            _append(db, before, one_line(text), author, details or {})
            return self._current(db, id, kind)

    def history(self, id: int, kind: str = CAPTION) -> list[CaptionVersion]:
        """Every version of a caption, the oldest first."""
        with schema.connection(self.database) as db:
            return _history(db, id, kind)

    def undo(self, id: int, kind: str = CAPTION) -> Picture:
        """Bring back the caption before the current one, as a new version; again goes further back.

        Raises:
            DatasetError: there is nothing to go back to.
        """
        with schema.transaction(self.database) as db:
            before = self._current(db, id, kind)
            versions = {version.version: version for version in _history(db, id, kind)}
            target = _origin(versions, before.version) - 1
            if target < 0:
                raise DatasetError(f"{before.name} has no earlier caption", "Write a caption first.")
            restored = versions.get(_origin(versions, target))
            text, author, number = (restored.text, restored.author, restored.version) if restored else ("", "", 0)
            _append(db, before, text, author, {"undoes": before.version, "restores": number})
            return self._current(db, id, kind)

    def statistics(self, pictures: Sequence[Picture] | None = None) -> Statistics:
        """Counts, sizes and formats of the pictures in use, which may be given if they are known already."""
        with schema.connection(self.database) as db:
            in_use = "SELECT coalesce(sum(bytes), 0) FROM pictures WHERE id NOT IN (SELECT picture FROM aside)"
            size_bytes = db.execute(in_use).fetchone()[0]
        return summarize(self.pictures() if pictures is None else pictures, size_bytes)

    def next_id(self) -> int:
        """The number that the next imported picture gets; only an import, which holds a lock, may rely on it."""
        with schema.connection(self.database) as db:
            return int(db.execute("SELECT coalesce(max(id), 0) + 1 FROM pictures").fetchone()[0])

    def add(self, pictures: Sequence[Picture], captions: Mapping[tuple[int, str], Claim]) -> list[tuple[int, str]]:
        """Store imported pictures and captions in one transaction; a caption by a person stays.

        Args:
            pictures: new ones, their files already in images/.
            captions: for pictures by number, new or old, and by kind; "" is the caption.

        Returns:
            Which of them were not stored, because a person wrote another one.
        """
        now = time.time()
        rows = [(p.id, p.file, p.name, p.sha256, p.width, p.height, self.path(p).stat().st_size, now) for p in pictures]
        kept = []
        with schema.transaction(self.database) as db:
            db.executemany("INSERT INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            for (id, kind), claim in captions.items():
                before = self._current(db, id, kind or CAPTION)
                if before.caption == claim.text:
                    continue
                if before.author == HUMAN:
                    kept.append((id, kind))
                else:
                    _append(db, before, claim.text, IMPORT, {"source": claim.label})
        return kept

    def _current(self, db: sqlite3.Connection, id: int, kind: str) -> Picture:
        row = db.execute(f"{_current(kind)} WHERE p.id = ?", (id,)).fetchone()
        if row is None:
            raise DatasetError(f"dataset {self.name!r} has no picture number {id}", "Reload the list of pictures.")
        return Picture(**row)


def _current(kind: str) -> str:
    return _CURRENT.format(table=kinds.table(kind), kind=kind)


def _append(db: sqlite3.Connection, before: Picture, text: str, author: str, details: Mapping[str, object]) -> None:
    """Add a caption version, unless it says the same in the same way as the current one."""
    encoded = json.dumps(dict(details), sort_keys=True)
    query = f"SELECT details FROM {kinds.table(before.kind)} WHERE picture = ? AND version = ?"
    latest = db.execute(query, (before.id, before.version)).fetchone()
    if latest is not None and (before.caption, before.author, latest["details"]) == (text, author, encoded):
        return
    db.execute(kinds.insertion(before.kind), (before.id, before.version + 1, text, author, encoded, time.time()))


def _history(db: sqlite3.Connection, id: int, kind: str) -> list[CaptionVersion]:
    rows = db.execute(
        f"SELECT version, text, author, details, written FROM {kinds.table(kind)} WHERE picture = ? ORDER BY version",
        (id,),
    )
    return [CaptionVersion(**(dict(row) | {"details": json.loads(row["details"])})) for row in rows]


def _origin(versions: Mapping[int, CaptionVersion], number: int) -> int:
    """The version that an undo brought back, or the number itself."""
    restores = versions[number].details.get("restores") if number in versions else None
    return restores if isinstance(restores, int) else number
