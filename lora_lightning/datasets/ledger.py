"""Edits of many captions at once, each of which can be taken back as one.

A bulk edit is stored whole or not at all, and never touches a caption that changed since it was read. Undoing writes
new versions, as a bulk edit of its own: undoing that one is redo.
"""

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from lora_lightning.datasets import kinds, schema
from lora_lightning.datasets.kinds import CAPTION
from lora_lightning.datasets.names import one_line
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import DatasetError

_ORIGIN = "coalesce(json_extract(details, '$.restores'), version)"
_KIND = f"coalesce((SELECT kind FROM bulk_kinds WHERE bulk = bulks.id), '{CAPTION}')"


@dataclass(frozen=True)
class Rewrite:
    """A new text for a caption, if that is still the version which was read (0 for none)."""

    picture: int
    expected_version: int
    text: str


@dataclass(frozen=True)
class Bulk:
    """One edit of many captions of a kind; `undoes` is the one that it took back, `written` seconds since the epoch."""

    id: int
    title: str
    captions: int
    undoes: int | None
    written: float
    kind: str


@dataclass(frozen=True)
class BulkResult:
    """What came of a bulk edit; pictures by number.

    Attributes:
        id: of the bulk edit, None when nothing was left to write.
        written: the captions that it changed.
        conflicts: the captions that had changed in between, and stay as they are.
    """

    id: int | None
    written: list[int]
    conflicts: list[int]


@dataclass(frozen=True)
class Replaced:
    """What a bulk edit did to one caption: its version and text before and after.

    Attributes:
        author: of the text before.
        stands: whether nobody has changed it since.
        kind: of caption.
    """

    picture: int
    name: str
    old_version: int
    before: str
    author: str
    version: int
    after: str
    stands: bool
    kind: str


@dataclass(frozen=True)
class _Caption:
    """A stored version; version 0 is the state before the first caption.

    `origin` is the version that an undo brought back by it, or itself: two versions of one origin are the same caption.
    """

    version: int = 0
    text: str = ""
    author: str = ""
    origin: int = 0


@dataclass(frozen=True)
class _Replacement:
    """One caption of a bulk edit, before and after it."""

    picture: int
    before: _Caption
    after: _Caption


@dataclass(frozen=True)
class _Step:
    """A caption to append to a picture whose current version is `before`; `details` are names with values."""

    picture: int
    before: int
    text: str
    author: str
    details: tuple[tuple[str, object], ...]


def rewrite(dataset: Dataset, title: str, rewrites: Sequence[Rewrite], kind: str = CAPTION) -> BulkResult:
    """Store new texts in one transaction; who wrote the caption stays, since an edit of many is not typed by hand.

    Args:
        dataset: to change.
        title: what the edit does, as shown in the list of edits.
        rewrites: at most one a picture.
        kind: of caption that is rewritten.
    """
    steps, conflicts = [], []
    with schema.transaction(dataset.database) as db:
        standing = _standing(db, kind)
        for each in rewrites:
            version, author = standing.get(each.picture, (0, ""))
            if version != each.expected_version:
                conflicts.append(each.picture)
            else:
                steps.append(_Step(each.picture, version, one_line(each.text), author, (("edit", title),)))
        return _write(db, kind, title, None, steps, conflicts)


def undo(dataset: Dataset, id: int) -> BulkResult:
    """Bring back the captions from before a bulk edit, as far as nobody has touched them since.

    Raises:
        DatasetError: there is no such edit.
    """
    steps, conflicts = [], []
    with schema.transaction(dataset.database) as db:
        row = db.execute(f"SELECT title, {_KIND} FROM bulks WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise DatasetError(f"dataset {dataset.name!r} has no edit number {id}", "Reload the list of edits.")
        title, kind = row
        current = _current(db, kind)
        for each in _replacements(db, kind, id):
            now = current[each.picture]
            if now.origin != each.after.origin:
                conflicts.append(each.picture)
            else:
                details = (("undoes", now.version), ("restores", each.before.origin))
                steps.append(_Step(each.picture, now.version, each.before.text, each.before.author, details))
        return _write(db, kind, f"Undo: {title}", id, steps, conflicts)


def bulks(dataset: Dataset) -> list[Bulk]:
    """Every bulk edit, the latest first."""
    with schema.connection(dataset.database) as db:
        rows = db.execute(
            "SELECT id, title, (SELECT count(*) FROM bulk_captions WHERE bulk = id), undoes, written, "
            f"{_KIND} FROM bulks ORDER BY id DESC"
        )
        return [Bulk(*row) for row in rows]


def replaced(dataset: Dataset, id: int, most: int) -> list[Replaced]:
    """The first captions that a bulk edit changed, by the numbers of their pictures."""
    with schema.connection(dataset.database) as db:
        row = db.execute(f"SELECT {_KIND} FROM bulks WHERE id = ?", (id,)).fetchone()
        kind = row[0] if row else CAPTION
        table = kinds.table(kind)
        rows = db.execute(
            "SELECT b.picture, p.name, b.before, coalesce(old.text, ''), coalesce(old.author, ''), b.after, new.text, "
            f"b.after = (SELECT max(version) FROM {table} WHERE picture = b.picture), '{kind}' "
            "FROM bulk_captions b JOIN pictures p ON p.id = b.picture "
            f"LEFT JOIN {table} old ON old.picture = b.picture AND old.version = b.before "
            f"JOIN {table} new ON new.picture = b.picture AND new.version = b.after "
            "WHERE b.bulk = ? ORDER BY b.picture LIMIT ?",
            (id, most),
        )
        return [Replaced(*row) for row in rows]


def restore(dataset: Dataset, row: Replaced) -> None:
    """Take back what a bulk edit did to one caption.

    Raises:
        CaptionConflict: it was changed since.
    """
    details = {"undoes": row.version, "restores": row.old_version}
    dataset.write_caption(
        row.picture, row.before, author=row.author, details=details, expected_version=row.version, kind=row.kind
    )


def _standing(db: sqlite3.Connection, kind: str) -> dict[int, tuple[int, str]]:
    """Version and author of each current caption."""
    rows = db.execute(f"SELECT picture, max(version), author FROM {kinds.table(kind)} GROUP BY picture")
    return {picture: (version, author) for picture, version, author in rows}


def _current(db: sqlite3.Connection, kind: str) -> dict[int, _Caption]:
    """The current caption of each picture that ever had one; of a group, SQLite reads the row of its max()."""
    rows = db.execute(
        f"SELECT picture, max(version), text, author, {_ORIGIN} FROM {kinds.table(kind)} GROUP BY picture"
    )
    return {picture: _Caption(*caption) for picture, *caption in rows}


def _replacements(db: sqlite3.Connection, kind: str, id: int) -> list[_Replacement]:
    """What a bulk edit did."""
    versions = {
        (picture, caption[0]): _Caption(*caption)
        for picture, *caption in db.execute(
            f"SELECT picture, version, text, author, {_ORIGIN} FROM bulk_captions "
            f"JOIN {kinds.table(kind)} USING (picture) WHERE bulk = ? AND version IN (before, after)",
            (id,),
        )
    }
    rows = db.execute("SELECT picture, before, after FROM bulk_captions WHERE bulk = ?", (id,))
    return [_Replacement(p, versions.get((p, before), _Caption()), versions[p, after]) for p, before, after in rows]


def _write(
    db: sqlite3.Connection, kind: str, title: str, undoes: int | None, steps: Sequence[_Step], conflicts: list[int]
) -> BulkResult:
    if not steps:
        return BulkResult(None, [], conflicts)
    now = time.time()
    id = db.execute("INSERT INTO bulks (title, undoes, written) VALUES (?, ?, ?)", (title, undoes, now)).lastrowid
    if kind != CAPTION:
        db.execute("INSERT INTO bulk_kinds VALUES (?, ?)", (id, kind))

    @cache  # most say the same
    def encoded(details: tuple[tuple[str, object], ...]) -> str:
        return json.dumps({"bulk": id, **dict(details)}, sort_keys=True)

    db.executemany(
        kinds.insertion(kind),
        [(s.picture, s.before + 1, s.text, s.author, encoded(s.details), now) for s in steps],
    )
    db.executemany(
        "INSERT INTO bulk_captions VALUES (?, ?, ?, ?)", [(id, s.picture, s.before, s.before + 1) for s in steps]
    )
    return BulkResult(id, [step.picture for step in steps], conflicts)
