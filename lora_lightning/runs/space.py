"""Disks that fill up: the work waits for space instead of losing what it has."""

import errno
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from lora_lightning.runs.reporter import Reporter

log = logging.getLogger("lora_lightning")
Made = TypeVar("Made")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RESERVE_MIB = 64
POLL_SECONDS = 2.0


def free_mib(path: Path) -> int:
    """Space left on a folder's disk."""
    return shutil.disk_usage(path).free >> 20


def wait_for_space(reporter: Reporter, needed_mib: int = RESERVE_MIB) -> None:
    """Return when the run's disk has room: at once, or after the state `paused`.

    Raises:
        Stopped: a stop was requested meanwhile.
    """
    if free_mib(reporter.run.path) >= needed_mib:
        return
    with _paused(reporter, f"the disk is full: {needed_mib} MiB are needed"):
        while free_mib(reporter.run.path) < needed_mib:
            reporter.check_stop()
            time.sleep(POLL_SECONDS)


def when_there_is_space(reporter: Reporter, what: str, write: Callable[[], Made]) -> Made:
    """Write, again and again while the disk is full; the state is `paused` meanwhile.

    Args:
        reporter: of the run.
        what: is written, in words.
        write: leaves nothing behind when it fails.

    Raises:
        Stopped: a stop was requested meanwhile.
    """
    try:
        return write()
    except OSError as error:
        if error.errno not in FULL:
            raise
    with _paused(reporter, f"the disk is full: {what} waits for space"):
        while True:
            reporter.check_stop()
            time.sleep(POLL_SECONDS)
            try:
                return write()
            except OSError as error:
                if error.errno not in FULL:
                    raise


@contextmanager
def _paused(reporter: Reporter, message: str) -> Iterator[None]:
    """The state file may be on the same disk; not being able to say so must not end the work."""
    hint = "Free some space and it goes on by itself; or stop it and resume it later."
    log.warning("%s. %s", message, hint)
    with suppress(OSError):
        reporter.run.write_state(state="paused", message=message, hint=hint)
    yield
    reporter.run.write_state(state="running", message="", hint="")
    log.info("there is space again")
