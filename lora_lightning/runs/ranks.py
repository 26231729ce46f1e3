"""Several processes that share one job. One of them, the main one, holds the run; the others help it and write nothing.

Lightning starts the helpers of a machine by running the very command again with LOCAL_RANK set; torchrun and SLURM
start all processes alike and number them. Every process sees the same workspace.
"""

import ctypes
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from lora_lightning.errors import Stopped
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.reporter import Asked, Reporter
from lora_lightning.runs.supervisor import PR_SET_PDEATHSIG

NUMBERS = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")
SHARED_RUN = "LORA_LIGHTNING_SHARED_RUN"
"""The run that the helpers are started for, where the main process starts them."""
POLL_SECONDS = 0.1
GRACE_SECONDS = 60.0
BEGIN_SECONDS = 600.0
"""Within so long the main process takes its run, or has failed; then it may wait for devices."""


def helping() -> bool:
    """Whether this process is started to help another."""
    return any(int(os.environ.get(name) or 0) > 0 for name in NUMBERS)


def started_together() -> int:
    """How many processes torchrun or SLURM have started; 1 when this one was started alone."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS") or 1)


def shared_run() -> RunFolder | None:
    """The run to help with, when the main process has said so."""
    path = os.environ.get(SHARED_RUN)
    return RunFolder(Path(path)) if path else None


class Silent(Reporter):
    """Reports nothing: the main process does. A stop that is asked of a helper it passes on."""

    def phase(self, name: str, total: int = 0, done: int = 0) -> None:
        """Nothing is shown."""

    def advance(self, done: int, **figures: float) -> None:
        """Nothing is shown."""

    def metric(self, step: int, **values: float) -> None:
        """Nothing is written."""

    def asked(self) -> Asked:
        """A stop; whatever else is asked the main process sees to."""
        return Asked(self.stop_requested)


def assist(run: RunFolder, work: Callable[[Reporter], object]) -> int:
    """Do the work beside the main process once that has begun; returns the exit code.

    A helper says nothing of a stop or of an error that all meet. One that only it met is printed, and ends the main
    process too: whoever started them sees to that.

    Args:
        run: that the main process holds, or will hold.
        work: the same as there.
    """
    if shared_run():
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if not _begun(run):
        return 1
    logging.getLogger("lora_lightning").setLevel(logging.ERROR)
    reporter = Silent(run)
    try:
        with reporter.listening():
            work(reporter)
    except Stopped:
        return 0
    except Exception:
        met, deadline = traceback.format_exc(), time.monotonic() + GRACE_SECONDS
        while run.lock.held() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        print(met, file=sys.stderr)
        return 1
    return 0


def _begun(run: RunFolder) -> bool:
    """Wait until the main process works; False when it ends before that, or never comes."""
    held, deadline = False, time.monotonic() + BEGIN_SECONDS
    while held or time.monotonic() < deadline:
        if run.lock.held():
            held = True
        elif held:
            break
        if held and run.read_state().get("state") == "running":
            return True
        time.sleep(POLL_SECONDS)
    return False
