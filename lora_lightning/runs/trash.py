"""Deleted runs: moved aside, not destroyed, until the trash is emptied."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from lora_lightning.errors import InputError, NameProblem
from lora_lightning.runs.folder import LIVE, RunFolder
from lora_lightning.workspace import Workspace

STAMP = "%Y%m%d-%H%M%S"


@dataclass(frozen=True)
class Deleted:
    """A run in the trash: the name it had, where it lies now, when it was deleted (seconds since 1970)."""

    name: str
    path: Path
    when: float


def delete(workspace: Workspace, run: RunFolder) -> Deleted:
    """Move a run that is not working into the trash.

    Raises:
        InputError: it is working.
    """
    if run.status().state in LIVE:
        raise InputError(f"run {run.name!r} is working", f"`runs stop {run.name}` first.")
    now, target = time.time(), _free(workspace, run.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(run.path, target)
    return Deleted(run.name, target, now)


def listed(workspace: Workspace) -> list[Deleted]:
    """What lies in the trash, the latest first."""
    found = []
    for path in _folder(workspace).glob("*"):
        name, _, stamp = path.name.rpartition(".")
        try:
            when = time.mktime(time.strptime(stamp.partition("_")[0], STAMP))
        except ValueError:
            continue
        found.append(Deleted(name, path, when))
    return sorted(found, key=lambda each: (each.when, each.path.name), reverse=True)


def restore(workspace: Workspace, deleted: Deleted) -> RunFolder:
    """Put a run back where it was.

    Raises:
        NameProblem: another run has its name by now.
        InputError: it is no longer in the trash.
    """
    run = RunFolder(workspace.run(deleted.name))
    if run.path.exists():
        raise NameProblem(f"another run is called {deleted.name!r} by now", "Delete or finish that one first.")
    if deleted.path.parent != _folder(workspace) or not deleted.path.is_dir():
        raise InputError(f"run {deleted.name!r} is not in the trash", "Reload the page.")
    run.path.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(deleted.path, run.path)
    return run


def empty(workspace: Workspace) -> int:
    """Destroy what lies in the trash; returns how many runs that were."""
    found = listed(workspace)
    for each in found:
        shutil.rmtree(each.path)
    return len(found)


def _folder(workspace: Workspace) -> Path:
    return workspace.home / "trash"


def _free(workspace: Workspace, name: str) -> Path:
    """A place of its own, also for two runs of one name deleted in one second."""
    base = _folder(workspace) / f"{name}.{time.strftime(STAMP)}"
    number, path = 1, base
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}_{number}")
    return path
