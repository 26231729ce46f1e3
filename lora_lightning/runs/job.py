"""The frame around every long step: its folder, its lock, its device, its log, and how it ended."""

import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psutil

from lora_lightning.errors import InputError, NameProblem, Stopped, translate
from lora_lightning.runs.files import Lock, write_json, write_text
from lora_lightning.runs.folder import RESUMABLE, RunFolder
from lora_lightning.runs.gpu import Device
from lora_lightning.runs.queue import wait_for_devices
from lora_lightning.runs.reporter import Outcome, Reporter
from lora_lightning.workspace import Workspace, check_name

log = logging.getLogger("lora_lightning")
Work = Callable[[Reporter], Outcome]

REPEATED = ("generate", "evaluate", "demo", "caption", "publish")
"""Verbs meant to be repeated: their runs number themselves."""


def run_name(verb: str, name: str) -> str:
    """The run of a verb: `name` for train, `name.VERB` for the others."""
    return name if verb == "train" else check_name(f"{name}.{verb}", "run name")


def reserve(workspace: Workspace, verb: str, name: str, recipe_yaml: str) -> RunFolder:
    """Make the folder of a new run; making the folder is the claim, so two starts cannot share one.

    Raises:
        NameProblem: the name is taken and the verb does not number itself.
    """
    base = run_name(verb, name)
    number, path = 1, workspace.run(base)
    while True:
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            taken = RunFolder(path)
            if verb in ("caption", "publish") and taken.status().state in RESUMABLE and _same(taken, recipe_yaml):
                return taken
            if verb not in REPEATED:
                raise _taken(taken) from None
            number += 1
            path = workspace.run(f"{base}-{number}")
    run = RunFolder(path)
    now = time.time()
    run.write_state(verb=verb, state="queued", created=now, launched=now)
    write_text(run.recipe_path, recipe_yaml)
    return run


def perform(
    workspace: Workspace,
    run: RunFolder,
    work: Work,
    *,
    needs_device: bool = True,
    devices: int | Literal["auto"] = 1,
    above: Reporter | None = None,
) -> Outcome:
    """Do the work of a run in this process: hold its lock, wait for a device, record how it ended.

    Args:
        workspace: that the run lies in.
        run: its folder.
        work: what is done.
        needs_device: whether it waits for a GPU (or the CPU) of its own.
        devices: how many of them it needs at once; auto for all.
        above: of the run that this one is a part of.

    Raises:
        NameProblem: another process works on this run.
        LoraLightningError: whatever ended the work, after it was recorded.
    """
    if not run.lock.acquire():
        raise NameProblem(f"run {run.name!r} is working already", f"Watch it, or `runs stop {run.name}` first.")
    reporter = Reporter(run, above)
    taken: list[tuple[Device, Lock]] = []
    run.forget_stop(before=psutil.Process().create_time())
    run.write_state(started=time.time(), message="", hint="", ended=None)
    try:
        with _logging_to(run, alone=above is None), reporter.listening():
            if needs_device:
                taken = _take_devices(workspace, reporter, devices)
            run.write_state(state="running", message="")
            return _recorded(run, lambda: work(reporter))
    except Stopped as stopped:
        run.write_state(state="stopped", message=stopped.message, hint=stopped.hint, ended=time.time())
        raise
    finally:
        run.forget_stop()
        for _, lock in taken:
            lock.release()
        run.lock.release()


def _recorded(run: RunFolder, work: Callable[[], Outcome]) -> Outcome:
    started = time.monotonic()
    try:
        outcome = work()
    except BaseException as error:
        known = translate(error)
        if not isinstance(known, Stopped):
            log.error("%s", known.message)
            log.debug("%s", traceback.format_exc())
            told = {"message": known.message, "hint": known.hint, "error": type(known).__name__}
            run.write_state(state="failed", ended=time.time(), **told)
        raise known from (None if known is error else error)
    seconds = round(time.monotonic() - started, 3)
    write_json(run.path / "result.json", {"made": outcome.made, "report": outcome.report, "seconds": seconds})
    run.write_state(state="completed", message="", hint="", ended=time.time())
    return outcome


def _same(run: RunFolder, recipe_yaml: str) -> bool:
    return run.recipe_path.is_file() and run.recipe_path.read_text(encoding="utf-8") == recipe_yaml


def _taken(run: RunFolder) -> NameProblem:
    state = run.status().state
    resume = f"`runs resume {run.name}` to go on with it, " if state in RESUMABLE else ""
    return NameProblem(
        f"run {run.name!r} exists already ({state})",
        f"{resume}`runs clone {run.name}` to start again beside it, or another name with name=NEW.".capitalize(),
    )


def _take_devices(workspace: Workspace, reporter: Reporter, count: int | Literal["auto"]) -> list[tuple[Device, Lock]]:
    try:
        taken = wait_for_devices(workspace, reporter, count)
    except InputError as error:
        reporter.run.write_state(state="failed", message=error.message, hint=error.hint, ended=time.time())
        raise
    names = [device.name for device, _ in taken]
    _use(names)
    reporter.run.write_state(device=", ".join(names))
    return taken


def _use(devices: list[str]) -> None:
    """Show only the devices in hand to the libraries imported from here on, numbered as the driver numbers them."""
    if devices[0].startswith("cuda-"):
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(device.removeprefix("cuda-") for device in devices)


@contextmanager
def _logging_to(run: RunFolder, *, alone: bool) -> Iterator[None]:
    """Our log to stderr (unless the run above does that), everything to log.txt; a supervisor's is stderr already."""
    handlers: list[logging.Handler] = []
    supervised = _is_stderr(run.log_path)
    to_file = logging.StreamHandler(sys.stderr) if supervised else logging.FileHandler(run.log_path, encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    to_file.setLevel(logging.DEBUG)
    handlers.append(to_file)
    if alone and not supervised:
        to_terminal = logging.StreamHandler(sys.stderr)
        to_terminal.setFormatter(logging.Formatter("%(message)s"))
        to_terminal.setLevel(logging.INFO)
        to_terminal.addFilter(lambda record: record.name.startswith("lora_lightning"))
        handlers.append(to_terminal)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    log.setLevel(logging.DEBUG)
    for handler in handlers:
        root.addHandler(handler)
    shown = warnings.showwarning
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        warnings.showwarning = shown
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


def _is_stderr(path: Path) -> bool:
    try:
        return os.path.sameopenfile(sys.stderr.fileno(), os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except (OSError, ValueError):
        return False
