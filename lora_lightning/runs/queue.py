"""The queue is the runs that wait: each polls for a device, the first in line tries first."""

import time

from lora_lightning.runs.files import Lock
from lora_lightning.runs.folder import RunFolder, Status, runs
from lora_lightning.runs.gpu import Device, devices
from lora_lightning.runs.reporter import Reporter
from lora_lightning.workspace import Workspace

POLL_SECONDS = 0.3


def waiting(workspace: Workspace) -> list[Status]:
    """The runs in line for a device, the next one first."""
    states = (run.status() for run in runs(workspace))
    return sorted((state for state in states if state.state == "queued"), key=lambda state: state.queue_order)


def move_to_front(workspace: Workspace, name: str) -> None:
    """Let a waiting run go before all others."""
    line = waiting(workspace)
    if line:
        RunFolder.open(workspace, name).write_state(queue_order=line[0].queue_order - 1)


def wait_for_device(workspace: Workspace, reporter: Reporter) -> tuple[Device, Lock]:
    """Wait in line until a device is free, and take it.

    Raises:
        Stopped: a stop was requested while waiting.
    """
    run = reporter.run
    run.write_state(state="queued", queue_order=run.read_state().get("queue_order") or time.time())
    shown = ""
    while True:
        reporter.check_stop()
        line = waiting(workspace)
        ahead = next((place for place, state in enumerate(line) if state.name == run.name), 0)
        taken = _take_free(workspace, run.name) if ahead == 0 else None
        if taken:
            return taken
        message = _reason(workspace, ahead)
        if message != shown:
            run.write_state(message=message)
            shown = message
        time.sleep(POLL_SECONDS)


def _take_free(workspace: Workspace, name: str) -> tuple[Device, Lock] | None:
    for device in devices(workspace):
        lock = Lock(device.lock_path)
        if lock.acquire(timeout_seconds=0.1):
            device.lock_path.write_text(name, encoding="utf-8")
            return device, lock
    return None


def _reason(workspace: Workspace, ahead: int) -> str:
    busy = [f"{device.name} is used by {device.holder()}" for device in devices(workspace) if device.holder()]
    before = f"; {ahead} in line before it" if ahead else ""
    return f"waiting: {', '.join(busy) or 'starting'}{before}"
