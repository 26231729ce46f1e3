"""Starting, stopping and resuming work from the dashboard: the very commands a person would type."""

import json
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
from lora_lightning.runs.files import write_text
from lora_lightning.runs.folder import RESUMABLE, RunFolder
from lora_lightning.runs.job import reserve
from lora_lightning.workspace import Workspace

ROOT = str(Path(__file__).parents[2])
"""Where the package lies, so that a job finds it whatever folder the dashboard was started in."""


def command(workspace: Workspace, verb: str, recipe: str) -> list[str]:
    """The command line of a verb."""
    return [sys.executable, "-m", "lora_lightning", verb, recipe, "--home", str(workspace.home)]


def start(workspace: Workspace, verb: str, name: str, recipe_yaml: str, device: str = "") -> RunFolder:
    """Reserve a run and start its command in a session of its own; `device` is the only one it may take.

    Raises:
        NameProblem: the name is taken.
    """
    run = reserve(workspace, verb, name, recipe_yaml)
    run.write_state(wanted=device)
    _detach(run, command(workspace, verb, str(run.recipe_path)))
    return run


OWN = {
    "recipe.yaml", "state.json", "state.lock", "run.lock", "result.json", "log.txt", "control", "lora.safetensors",
    "identity.json", "samples", "metrics.jsonl", "checkpoints",
}  # fmt: skip
"""What belongs to one run alone, or is copied up to a step; the rest of its folder is what it was begun with."""


def go_on(workspace: Workspace, old: RunFolder, name: str, recipe_yaml: str, step: int) -> RunFolder:
    """Start a new training that goes on from copies of what another has learned; the old one stays as it is.

    Args:
        workspace: of both.
        old: a run with checkpoints.
        name: of the new run.
        recipe_yaml: the old recipe with other steps: more of them to go on, `step` to finish there.
        step: of the checkpoint to begin from.

    Raises:
        InputError: the old one has no such checkpoint.
        NameProblem: the name is taken.
    """
    checkpoint = old.checkpoints / f"{step:07d}.ckpt"
    if not checkpoint.is_file():
        raise InputError(f"run {old.name!r} has no checkpoint of step {step}", "Choose one that it lists.")
    run = reserve(workspace, "train", name, recipe_yaml)
    for part in old.path.iterdir():
        if part.is_dir() and part.name not in OWN:
            shutil.copytree(part, run.path / part.name)
        elif part.is_file() and part.name not in OWN:
            shutil.copy2(part, run.path / part.name)
    run.checkpoints.mkdir()
    for path in (checkpoint, checkpoint.with_suffix(".json")):
        if path.is_file():
            shutil.copy2(path, run.checkpoints / path.name)
    run.samples.mkdir()
    for path in old.samples.glob("[0-9]*-*.png"):
        if int(path.name.split("-")[0]) <= step:
            shutil.copy2(path, run.samples / path.name)
    rows = (row for row in old.metrics() if row["step"] <= step)
    write_text(run.metrics_path, "".join(json.dumps(row) + "\n" for row in rows))
    _detach(run, command(workspace, "train", str(run.recipe_path)))
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
