"""The queue is the runs that wait: each polls for a device, the first in line tries first."""

import time
from typing import Literal

from lora_lightning.errors import InputError
from lora_lightning.runs.files import Lock
from lora_lightning.runs.folder import RunFolder, Status, runs
from lora_lightning.runs.gpu import Device, devices
from lora_lightning.runs.ranks import started_together
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


def move(workspace: Workspace, name: str, places: int) -> None:
    """Let a waiting run change its place in line: -1 is one place forward, 1 is one back."""
    line = waiting(workspace)
    here = next((place for place, state in enumerate(line) if state.name == name), None)
    if here is None or not 0 <= here + places < len(line):
        return
    line.insert(here + places, line.pop(here))
    orders = sorted(state.queue_order for state in line)
    for state, order in zip(line, orders, strict=True):
        if state.queue_order != order:
            RunFolder.open(workspace, state.name).write_state(queue_order=order)


def wait_for_devices(
    workspace: Workspace, reporter: Reporter, count: int | Literal["auto"] = 1
) -> list[tuple[Device, Lock]]:
    """Wait in line until so many devices are free at once, and take them; the CPU counts as many.

    Args:
        workspace: whose runs wait.
        reporter: of the run.
        count: how many; auto for all that there are.

    Raises:
        InputError: there are not so many.
        Stopped: a stop was requested while waiting.
    """
    run, found = reporter.run, devices(workspace)
    wanted = len(found) if count == "auto" or found[0].name == "cpu" else count
    if wanted > len(found):
        raise InputError(f"{wanted} GPUs are asked for, and there are {len(found)}", f"Ask for {len(found)}.")
    run.write_state(state="queued", queue_order=run.read_state().get("queue_order") or time.time())
    shown = ""
    while True:
        reporter.check_stop()
        line = waiting(workspace)
        ahead = next((place for place, state in enumerate(line) if state.name == run.name), 0)
        taken = _take_free(found, wanted, run.name) if ahead == 0 else []
        if taken:
            return taken
        message = _reason(workspace, ahead)
        if message != shown:
            run.write_state(message=message)
            shown = message
        time.sleep(POLL_SECONDS)


def _take_free(found: list[Device], wanted: int, name: str) -> list[tuple[Device, Lock]]:
    """All of them or none: two runs that each hold a part would wait for each other.

    Processes that were started from outside use the first devices, whichever are free.
    """
    taken: list[tuple[Device, Lock]] = []
    for device in found[:wanted] if started_together() > 1 else found:
        lock = Lock(device.lock_path)
        if len(taken) < wanted and lock.acquire(timeout_seconds=0.1):
            taken.append((device, lock))
    if len(taken) < wanted:
        for _, lock in taken:
            lock.release()
        return []
    for device, _ in taken:
        device.lock_path.write_text(name, encoding="utf-8")
    return taken


def _reason(workspace: Workspace, ahead: int) -> str:
    busy = [f"{device.name} is used by {device.holder()}" for device in devices(workspace) if device.holder()]
    before = f"; {ahead} in line before it" if ahead else ""
    return f"waiting: {', '.join(busy) or 'starting'}{before}"
