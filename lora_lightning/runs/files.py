"""Files that are either old or new, never half: written beside the target, synced, renamed."""

import fcntl
import functools
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

REMEMBERED = 4096
"""JSON files whose values are kept; a run has two, of a kilobyte or so."""
SETTLED_SECONDS = 2.0


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Call `write` with a file that becomes `path` when it is complete and on the disk.

    The temporary file lies in the target's own folder: a rename across file systems would be a copy.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_atomic(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: object) -> Path:
    """Write JSON atomically."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one when the file is not there yet."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def settled_json(path: Path) -> dict[str, Any]:
    """The same for those who only look, over and over: a file that nobody touched of late is not parsed again."""
    try:
        stat = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    if time.time() - stat.st_mtime < SETTLED_SECONDS:  # two writes within a tick of the clock look alike
        return read_json(path)
    return dict(_parsed(path, stat.st_ino, stat.st_mtime_ns, stat.st_size))


@functools.lru_cache(REMEMBERED)
def _parsed(path: Path, _inode: int, _mtime_ns: int, _size: int) -> dict[str, Any]:
    return read_json(path)


class Lock:
    """An exclusive flock, freed by the system however its holder ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self, timeout_seconds: float = 1.0) -> bool:
        """Take the lock; a short timeout outlasts those who only look whether it is held."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(file)
                    return False
                time.sleep(0.02)
            else:
                self._file = file
                return True

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def held(self) -> bool:
        """Whether anybody holds the lock now."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False
