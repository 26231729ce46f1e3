"""Telling another program how a job ended: one JSON object by HTTP, to the address in the workspace's notify.json.

Nothing is sent until a person has set an address. The supervisor sends, so jobs of the dashboard are told of, also when
nobody looks; a command on a terminal tells by its exit code.
"""

import json
import logging
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from lora_lightning.errors import InputError
from lora_lightning.runs.files import read_json, write_json
from lora_lightning.runs.folder import RunFolder
from lora_lightning.workspace import Workspace

log = logging.getLogger("lora_lightning")
TIMEOUT_SECONDS = 10


def address(workspace: Workspace) -> str:
    """Where the ends of jobs are sent, or nothing."""
    return str(read_json(_file(workspace)).get("webhook", ""))


def set_address(workspace: Workspace, webhook: str) -> None:
    """Send the ends of jobs to an address from now on; an empty one sends nothing.

    Raises:
        InputError: it is no http(s) address.
    """
    parts = urlsplit(webhook)
    if webhook and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise InputError(f"{webhook!r} is no web address", "Give one that begins with http:// or https://.")
    write_json(_file(workspace), {"webhook": webhook})


def tell(workspace: Workspace, run: RunFolder) -> bool:
    """Send how a run stands; whether it was taken. Trouble goes to the log and nowhere else."""
    webhook = address(workspace)
    if not webhook:
        return False
    status = run.status()
    said = {"run": status.name, "verb": status.verb, "state": status.state, "message": status.message}
    said["text"] = f"{status.name}: {status.state}" + (f" ({status.message})" if status.message else "")
    request = Request(webhook, json.dumps(said).encode(), {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=TIMEOUT_SECONDS):
            return True
    except (URLError, OSError, ValueError) as error:
        log.warning("the webhook could not be told: %s", error)
        return False


def _file(workspace: Workspace) -> Path:
    return workspace.home / "notify.json"
