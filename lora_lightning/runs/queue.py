"""The queue is the runs that wait: each polls for a device, the first in line tries first.

A run may want one device alone; then it waits for that one, and those behind it take the others.
"""

import logging
import time
from collections.abc import Sequence
from typing import Literal

from lora_lightning.errors import InputError
from lora_lightning.runs.files import Lock
from lora_lightning.runs.folder import RunFolder, Status, runs
from lora_lightning.runs.gpu import Device, devices
from lora_lightning.runs.ranks import started_together
from lora_lightning.runs.reporter import Reporter
from lora_lightning.workspace import Workspace

log = logging.getLogger("lora_lightning")
POLL_SECONDS = 0.3


def waiting(workspace: Workspace) -> list[Status]:
    """The runs in line for a device, the next one first."""
    states = (run.status() for run in runs(workspace))
    line = (state for state in states if state.state == "queued" and state.queue_order)  # else it only starts
    return sorted(line, key=lambda state: state.queue_order)


def move_to_front(workspace: Workspace, name: str) -> None:
    """Let a waiting run go before all others."""
    line = waiting(workspace)
    if line:
        RunFolder.open(workspace, name).write_state(queue_order=line[0].queue_order - 1)


def move(workspace: Workspace, name: str, places: int) -> None:
    """Let a waiting run change its place among its rivals: -1 is one place forward, 1 is one back."""
    line = rivals(waiting(workspace), name)
    here = next((place for place, state in enumerate(line) if state.name == name), None)
    if here is None or not 0 <= here + places < len(line):
        return
    line.insert(here + places, line.pop(here))
    orders = sorted(state.queue_order for state in line)
    for state, order in zip(line, orders, strict=True):
        if state.queue_order != order:
            RunFolder.open(workspace, state.name).write_state(queue_order=order)


def rivals(line: Sequence[Status], name: str) -> list[Status]:
    """Those in line that may take a device which this run may take, itself among them."""
    wanted = next((state.wanted for state in line if state.name == name), "")
    return [state for state in line if not wanted or state.wanted in ("", wanted)]


def choose_device(workspace: Workspace, name: str, device: str) -> None:
    """Let a waiting run take this device alone, or whichever is free first for ''.

    Raises:
        InputError: there is no such device.
    """
    names = [each.name for each in devices(workspace)]
    if device and device not in names:
        raise InputError(f"there is no device {device!r}", f"Choose one of: {', '.join(names)}, any.")
    RunFolder.open(workspace, name).write_state(wanted=device)


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
    number = len(found) if count == "auto" or found[0].name == "cpu" else count
    if number > len(found):
        raise InputError(f"{number} GPUs are asked for, and there are {len(found)}", f"Ask for {len(found)}.")
    run.write_state(state="queued", queue_order=run.read_state().get("queue_order") or time.time())
    shown = ""
    while True:
        reporter.check_stop()
        taken = _take_free(_choices(workspace, run, found, number), number, run.name)
        if taken and {device for device, _ in taken} <= set(_choices(workspace, run, found, number)):
            return taken
        for _, lock in taken:  # the line changed meanwhile
            lock.release()
        ahead = _place(rivals(waiting(workspace), run.name), run.name)
        message = _reason(workspace, ahead)
        if message != shown:
            run.write_state(message=message)
            shown = message
        time.sleep(POLL_SECONDS)


def _place(line: Sequence[Status], name: str) -> int:
    """How many stand before a run; 0 when it is not in line yet."""
    return next((place for place, state in enumerate(line) if state.name == name), 0)


def _wanted(run: RunFolder, found: Sequence[Device], count: int) -> str:
    """The one device that the run wants; asked each time, since a person may change it meanwhile."""
    wanted = str(run.read_state().get("wanted", ""))
    if wanted and (count > 1 or wanted not in [device.name for device in found]):
        why = f"{count} devices are asked for" if count > 1 else "it is not here"
        log.warning("not waiting for %s alone: %s", wanted, why)
        run.write_state(wanted="")
        return ""
    return wanted


def _choices(workspace: Workspace, run: RunFolder, found: Sequence[Device], count: int) -> list[Device]:
    """What a run may try to take now: nothing that another one before it in line waits for.

    One before it that takes any device has found none free, or gathers several: it is not overtaken.
    """
    line, wanted = waiting(workspace), _wanted(run, found, count)
    before = line[: _place(line, run.name)]
    if any(not state.wanted for state in before):
        return []
    kept = {state.wanted for state in before}
    return [device for device in found if device.name not in kept and wanted in ("", device.name)]


def _take_free(found: Sequence[Device], wanted: int, name: str) -> list[tuple[Device, Lock]]:
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
