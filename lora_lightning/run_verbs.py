"""`runs`: see and steer runs from the command line; what the dashboard shows and does."""

import shutil
import time
from argparse import Namespace

from lora_lightning import recipe
from lora_lightning.errors import InputError
from lora_lightning.runs import launch, queue, trash
from lora_lightning.runs.folder import RunFolder, Status, runs
from lora_lightning.runs.job import reserve
from lora_lightning.runs.reporter import Outcome, duration
from lora_lightning.taking import Say, take
from lora_lightning.workspace import Workspace


def runs_(arguments: Namespace, workspace: Workspace, say: Say) -> Outcome:
    """List, show, stop, resume, queue, clone or delete runs."""
    action, *words = arguments.words or ["list"]
    actions = {"list": _list, "show": _show, "stop": _stop, "resume": _resume, "queue": _queue}
    actions |= {"clone": _clone, "delete": _delete}
    if action not in actions:
        raise InputError(f"there is no `runs {action}`", f"Choose one of: {', '.join(actions)}.")
    if not words and action not in ("list", "queue"):
        raise InputError(f"`runs {action}` needs the name of a run", "`runs list` shows them.")
    return actions[action](words, workspace, say)


def _describe(status: Status) -> str:
    progress = f" {status.phase} {status.done}/{status.total}" if status.live and status.total else ""
    left = f", about {duration(status.eta_seconds)} left" if status.eta_seconds is not None else ""
    return f"{status.name}: {status.state}{progress}{left}" + (f" ({status.message})" if status.message else "")


def _list(_words: list[str], workspace: Workspace, say: Say) -> Outcome:
    found = [run.status() for run in runs(workspace)]
    for status in found:
        say(_describe(status))
    if not found:
        say(f"no runs in {workspace.runs}; `python -m lora_lightning train RECIPE` makes the first")
    return Outcome(report={"runs": [vars(status) for status in found]})


def _show(words: list[str], workspace: Workspace, say: Say) -> Outcome:
    run = RunFolder.open(workspace, words[0])
    say(_describe(run.status()))
    say(run.log_tail(4096))
    return Outcome({"run": str(run.path)}, vars(run.status()) | {"result": run.result()})


def _stop(words: list[str], workspace: Workspace, say: Say) -> Outcome:
    run = RunFolder.open(workspace, words[0])
    if not run.status().live:
        raise InputError(f"run {run.name!r} is {run.status().state}", "Only a run that works or waits can be stopped.")
    launch.stop(run)
    deadline = time.monotonic() + 300
    while run.status().live and time.monotonic() < deadline:
        time.sleep(0.2)
    say(_describe(run.status()))
    return Outcome({"run": str(run.path)}, {"state": run.status().state})


def _resume(words: list[str], workspace: Workspace, say: Say) -> Outcome:
    run = RunFolder.open(workspace, words[0])
    launch.check_resumable(run)
    return take(run.status().verb, recipe.load(run.recipe_path), workspace, run, say)


def _queue(words: list[str], workspace: Workspace, say: Say) -> Outcome:
    if len(words) > 1:
        queue.choose_device(workspace, words[0], "" if words[1] == "any" else words[1])
    elif words:
        queue.move_to_front(workspace, words[0])
    line = queue.waiting(workspace)
    for status in line:
        say(_describe(status))
    if not line:
        say("nothing waits")
    return Outcome(report={"queue": [status.name for status in line]})


def _clone(words: list[str], workspace: Workspace, say: Say) -> Outcome:
    name, *overrides = words
    run = RunFolder.open(workspace, name)
    values = recipe.read(run.recipe_path)
    copy = recipe.parse({**values, "name": launch.clone_name(workspace, values["name"])}, overrides)
    verb = run.status().verb
    return take(verb, copy, workspace, reserve(workspace, verb, copy.name, copy.to_yaml()), say)


def _delete(words: list[str], workspace: Workspace, say: Say) -> Outcome:
    deleted = trash.delete(workspace, RunFolder.open(workspace, words[0]))
    say(f"moved to {deleted.path}; {shutil.disk_usage(workspace.home).free >> 30} GiB are free")
    return Outcome({"files": [str(deleted.path)]}, {})
