"""Further captions of a picture beside its caption: a short one, its tags. Each has versions of its own.

The caption is what every trainer gets. The others are exported where a trainer knows them, and a training of ours may
draw among all of them.
"""

import json
import re
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass

from lora_lightning.datasets import schema
from lora_lightning.datasets.captions import Claim
from lora_lightning.datasets.names import one_line
from lora_lightning.datasets.store import HUMAN, IMPORT, CaptionVersion, Dataset
from lora_lightning.errors import CaptionConflict, InputError

SHORT, TAGS = "short", "tags"
USUAL = (SHORT, TAGS)
_KIND = re.compile(r"[a-z][a-z0-9-]{0,30}")


@dataclass(frozen=True)
class Alternate:
    """A further caption of a picture: its current version, 0 when it never had one."""

    picture: int
    kind: str
    text: str = ""
    version: int = 0
    author: str = ""


def current(dataset: Dataset) -> dict[int, dict[str, Alternate]]:
    """Every further caption that is not empty, by picture number and kind."""
    found: dict[int, dict[str, Alternate]] = {}
    with schema.connection(dataset.database) as db:
        rows = db.execute("SELECT picture, kind, text, max(version), author FROM alternates GROUP BY picture, kind")
        for alternate in (Alternate(*row) for row in rows):  # of a group, SQLite reads the row of its max()
            if alternate.text:
                found.setdefault(alternate.picture, {})[alternate.kind] = alternate
    return found


def of_picture(dataset: Dataset, id: int, kind: str) -> Alternate:
    """One further caption of a picture, which may be empty."""
    with schema.connection(dataset.database) as db:
        return _current(db, id, kind)


def write(
    dataset: Dataset,
    id: int,
    kind: str,
    text: str,
    *,
    author: str = HUMAN,
    details: Mapping[str, object] | None = None,
    expected_version: int | None = None,
) -> Alternate:
    """Store a new version of a further caption, as one line; writing the same again changes nothing.

    Args:
        dataset: of the picture.
        id: of the picture.
        kind: "short", "tags" or a name of one's own.
        text: line breaks become spaces; empty for none.
        author: "human" or the captioner's name.
        details: how it was made, as plain JSON values.
        expected_version: the version that the writer has seen (compare-and-set).

    Raises:
        CaptionConflict: somebody else wrote in between; it carries the text stored now.
        InputError: the kind cannot be a name.
        DatasetError: there is no such picture.
    """
    if not _KIND.fullmatch(kind):
        raise InputError(f"{kind!r} cannot name a kind of caption", "Use small letters and digits, such as 'short'.")
    name = dataset.picture(id).name
    with schema.transaction(dataset.database) as db:
        before = _current(db, id, kind)
        if expected_version is not None and before.version != expected_version:
            raise CaptionConflict(f"the {kind} caption of {name} was changed in the meantime", before.text)
        return _append(db, before, one_line(text), author, details or {})


def history(dataset: Dataset, id: int, kind: str) -> list[CaptionVersion]:
    """Every version of a further caption, the oldest first."""
    with schema.connection(dataset.database) as db:
        rows = db.execute(
            "SELECT version, text, author, details, written FROM alternates WHERE picture = ? AND kind = ? "
            "ORDER BY version",
            (id, kind),
        )
        return [CaptionVersion(**(dict(row) | {"details": json.loads(row["details"])})) for row in rows]


def arrive(db: sqlite3.Connection, claims: Mapping[tuple[int, str], Claim]) -> list[tuple[int, str]]:
    """Store imported ones, in the transaction of their import; one by a person stays.

    Returns:
        Picture numbers and kinds that keep another text, because a person wrote it.
    """
    kept = []
    for (id, kind), claim in claims.items():
        before = _current(db, id, kind)
        if before.author == HUMAN and before.text != claim.text:
            kept.append((id, kind))
        else:
            _append(db, before, claim.text, IMPORT, {"source": claim.label})
    return kept


def _current(db: sqlite3.Connection, id: int, kind: str) -> Alternate:
    row = db.execute(
        "SELECT text, version, author FROM alternates WHERE picture = ? AND kind = ? ORDER BY version DESC LIMIT 1",
        (id, kind),
    ).fetchone()
    return Alternate(id, kind, *(row or ()))


def _append(
    db: sqlite3.Connection, before: Alternate, text: str, author: str, details: Mapping[str, object]
) -> Alternate:
    if before.text == text:
        return before
    after = Alternate(before.picture, before.kind, text, before.version + 1, author)
    row = (after.picture, after.kind, after.version, text, author, json.dumps(dict(details), sort_keys=True))
    db.execute("INSERT INTO alternates VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, time.time()))
    return after
