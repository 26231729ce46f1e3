"""The SQLite file of a dataset: its tables, its connections and what its errors mean."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_lightning.errors import DatasetError, DiskFull, JobError

BUSY_SECONDS = 30.0
_CANNOT_GROW = (  # a quota or a limit on the size of files, which SQLite does not tell from a broken disk
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
)

_PICTURES_AND_CAPTIONS = """
CREATE TABLE pictures (
    id INTEGER PRIMARY KEY,
    file TEXT NOT NULL UNIQUE,      -- name inside images/
    name TEXT NOT NULL,             -- as the user called it, made unique
    sha256 TEXT NOT NULL UNIQUE,    -- of the original's bytes
    width INTEGER NOT NULL,         -- pixels, upright
    height INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    imported REAL NOT NULL          -- seconds since the epoch
);
CREATE TABLE captions (
    picture INTEGER NOT NULL REFERENCES pictures (id),
    version INTEGER NOT NULL,       -- 1, 2, ...; the highest is the current one
    text TEXT NOT NULL,
    author TEXT NOT NULL,           -- '' | 'human' | 'import' | a captioner's name
    details TEXT NOT NULL,          -- JSON object: prompt, parameters, seed, ...
    written REAL NOT NULL,
    PRIMARY KEY (picture, version)
);
CREATE TRIGGER captions_stay BEFORE UPDATE ON captions
    BEGIN SELECT RAISE(ABORT, 'a caption version never changes'); END;
CREATE TRIGGER captions_are_kept BEFORE DELETE ON captions
    BEGIN SELECT RAISE(ABORT, 'a caption version is never deleted'); END;
"""

_TRIAGE_AND_LEDGER = """
CREATE TABLE IF NOT EXISTS aside (  -- pictures that stay in the dataset but are not used
    picture INTEGER PRIMARY KEY REFERENCES pictures (id),
    reason TEXT NOT NULL,
    since REAL NOT NULL             -- seconds since the epoch
);
CREATE TABLE IF NOT EXISTS measures (
    picture INTEGER PRIMARY KEY REFERENCES pictures (id),
    dhash INTEGER NOT NULL,         -- 64 bits, read as a signed number
    sharpness REAL NOT NULL,
    shadows REAL NOT NULL,          -- 5th percentile of the brightness, 0 to 1
    highlights REAL NOT NULL        -- 99th percentile likewise
);
CREATE TABLE IF NOT EXISTS bulks (  -- one edit of many captions
    id INTEGER PRIMARY KEY,
    title TEXT NOT NULL,
    undoes INTEGER REFERENCES bulks (id),
    written REAL NOT NULL           -- seconds since the epoch
);
CREATE TABLE IF NOT EXISTS bulk_captions (
    bulk INTEGER NOT NULL REFERENCES bulks (id),
    picture INTEGER NOT NULL REFERENCES pictures (id),
    before INTEGER NOT NULL,        -- caption version that was replaced, 0 for none
    after INTEGER NOT NULL,         -- caption version that was written
    PRIMARY KEY (bulk, picture)
) WITHOUT ROWID;
"""

_FOCUS_AND_ALTERNATES = """
CREATE TABLE IF NOT EXISTS focus (  -- where crops are centred, of pictures for which it was moved
    picture INTEGER PRIMARY KEY REFERENCES pictures (id),
    x REAL NOT NULL,                -- share of the width from the left, 0 to 1
    y REAL NOT NULL                 -- share of the height from the top, 0 to 1
);
CREATE TABLE IF NOT EXISTS alternates (
    picture INTEGER NOT NULL REFERENCES pictures (id),
    kind TEXT NOT NULL,             -- 'short' | 'tags' | ...
    version INTEGER NOT NULL,       -- 1, 2, ...; the highest is the current one
    text TEXT NOT NULL,
    author TEXT NOT NULL,
    details TEXT NOT NULL,
    written REAL NOT NULL,
    PRIMARY KEY (picture, kind, version)
);
CREATE TRIGGER IF NOT EXISTS alternates_stay BEFORE UPDATE ON alternates
    BEGIN SELECT RAISE(ABORT, 'a caption version never changes'); END;
CREATE TRIGGER IF NOT EXISTS alternates_are_kept BEFORE DELETE ON alternates
    BEGIN SELECT RAISE(ABORT, 'a caption version is never deleted'); END;
"""

_VARIATIONS_AND_KINDS = """
CREATE TABLE IF NOT EXISTS variations (  -- pictures drawn from one of the dataset's, which a person looks at first
    id INTEGER PRIMARY KEY,
    file TEXT NOT NULL UNIQUE,      -- name inside variations/
    sha256 TEXT NOT NULL UNIQUE,    -- of its bytes
    origin INTEGER NOT NULL REFERENCES pictures (id),
    caption TEXT NOT NULL,
    details TEXT NOT NULL,          -- JSON object: model, LoRAs, strength, seed, ...
    made REAL NOT NULL,             -- seconds since the epoch
    state TEXT NOT NULL             -- 'waiting' | 'accepted' | 'rejected'
);
CREATE TABLE IF NOT EXISTS bulk_kinds (  -- edits of other captions than the one that every trainer gets
    bulk INTEGER PRIMARY KEY REFERENCES bulks (id),
    kind TEXT NOT NULL              -- as in `alternates`
);
"""

STEPS = (_PICTURES_AND_CAPTIONS, _TRIAGE_AND_LEDGER, _FOCUS_AND_ALTERNATES, _VARIATIONS_AND_KINDS)
"""Each brings a file of one schema to the next; two processes may take a step beyond the first at once."""
VERSION = len(STEPS)


def create(path: Path) -> None:
    """Write an empty dataset file; WAL lets the dashboard read while a captioner writes."""
    path.touch(exist_ok=False)
    with connection(path) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(_steps(0))


def upgrade(path: Path) -> None:
    """Bring a file of an older schema up to date; refuse one of a newer schema, or one that is no dataset at all.

    Raises:
        DatasetError: it names the file.
    """
    with connection(path) as db:
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if not 1 <= found <= VERSION:
            raise DatasetError(
                f"{path} has schema {found}, this program reads schema {VERSION}",
                "Use the version of LoRA Lightning that made the dataset, or import the pictures again.",
            )
        if found < VERSION:
            db.executescript(_steps(found))


def _steps(found: int) -> str:
    return f"BEGIN IMMEDIATE; {''.join(STEPS[found:])} PRAGMA user_version = {VERSION}; COMMIT;"


@contextmanager
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for one operation, so that any thread or process can have its own.

    Raises:
        DiskFull: no space left.
        JobError: another process kept the file locked, or it cannot be written.
        DatasetError: the file is damaged.
    """
    db = None
    try:
        existing = f"{path.absolute().as_uri()}?mode=rw"
        db = sqlite3.connect(existing, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA foreign_keys = ON")
        yield db
    except sqlite3.DatabaseError as error:
        raise _explain(error, path) from error
    finally:
        if db is not None:
            db.close()


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that holds the write lock; everything or nothing is stored."""
    with connection(path) as db:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.rollback()
            raise
        db.commit()


def _explain(error: sqlite3.DatabaseError, path: Path) -> Exception:
    """The error of our tree that a database error means; the primary code is the low byte of the extended one."""
    extended = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    code = extended & 0xFF
    if code == sqlite3.SQLITE_FULL or extended in _CANNOT_GROW:
        return DiskFull(
            f"no space left on the disk while writing {path}", "Free some space, then run the same command again."
        )
    if code == sqlite3.SQLITE_BUSY:
        return JobError(f"{path} stayed locked for {BUSY_SECONDS:.0f} s", "Wait for the other job, then try again.")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
        return JobError(f"{path} cannot be used: {error}", "Make it writable, or choose another --home.")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DatasetError(f"{path} is damaged: {error}", "Restore it from a backup, or import the pictures again.")
    return error
