"""Starting, stopping and resuming work from the dashboard: the very commands a person would type."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from lora_lightning.errors import InputError
from lora_lightning.runs.folder import LIVE, RESUMABLE, RunFolder
from lora_lightning.runs.job import reserve
from lora_lightning.workspace import Workspace

ROOT = str(Path(__file__).parents[2])
"""Where the package lies, so that a job finds it whatever folder the dashboard was started in."""


def command(workspace: Workspace, verb: str, recipe: str) -> list[str]:
    """The command line of a verb."""
    return [sys.executable, "-m", "lora_lightning", verb, recipe, "--home", str(workspace.home)]


def start(workspace: Workspace, verb: str, name: str, recipe_yaml: str) -> RunFolder:
    """Reserve a run and start its command in a session of its own.

    Raises:
        NameProblem: the name is taken.
    """
    run = reserve(workspace, verb, name, recipe_yaml)
    _detach(run, command(workspace, verb, str(run.recipe_path)))
    return run


def resume(workspace: Workspace, name: str) -> RunFolder:
    """Start a run again from where it stands.

    Raises:
        InputError: it is working or done.
    """
    run = RunFolder.open(workspace, name)
    check_resumable(run)
    _detach(run, [sys.executable, "-m", "lora_lightning", "runs", "resume", name, "--home", str(workspace.home)])
    return run


def check_resumable(run: RunFolder) -> None:
    """Refuse to resume what is working or done.

    Raises:
        InputError: it is.
    """
    status = run.status()
    if status.state not in RESUMABLE and not (status.state == "queued" and not run.lock.held()):
        hint = f"`runs stop {run.name}` first." if status.live else f"`runs clone {run.name}` starts a new one like it."
        raise InputError(f"run {run.name!r} is {status.state}", hint.capitalize())


def stop(run: RunFolder) -> None:
    """Ask the work to save and end; it does so between steps."""
    run.request("STOP")


def force_stop(run: RunFolder) -> None:
    """End the work at once; what was done since the last checkpoint is lost."""
    stored = run.read_state()
    if not stored.get("supervisor_pid"):
        return
    with suppress(psutil.NoSuchProcess):
        supervisor = psutil.Process(stored["supervisor_pid"])
        if abs(supervisor.create_time() - stored["supervisor_started"]) < 1:  # else the number was given away again
            for process in supervisor.children(recursive=True):
                process.send_signal(signal.SIGKILL)


def clone_name(workspace: Workspace, name: str) -> str:
    """A free name for a copy of a run."""
    number = 2
    while workspace.run(f"{name}-{number}").exists():
        number += 1
    return f"{name}-{number}"


def delete(workspace: Workspace, run: RunFolder) -> str:
    """Move a run that is not working into the trash; returns where it lies now.

    Raises:
        InputError: it is working.
    """
    if run.status().state in LIVE:
        raise InputError(f"run {run.name!r} is working", f"`runs stop {run.name}` first.")
    trash = workspace.home / "trash" / f"{run.name}.{time.strftime('%Y%m%d-%H%M%S')}"
    trash.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(run.path, trash)
    return str(trash)


def _detach(run: RunFolder, argv: list[str]) -> None:
    run.write_state(state="queued", message="starting", hint="", launched=time.time(), supervisor_pid=None)
    with run.log_path.open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "lora_lightning.runs.supervisor", str(run.path), "--", *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH", "")]))},
        )
    threading.Thread(target=supervisor.wait, daemon=True).start()  # reap it: no zombies while the dashboard lives
    created = psutil.Process(supervisor.pid).create_time()
    run.write_state(supervisor_pid=supervisor.pid, supervisor_started=created)
