"""A file for a bug report: what this machine is and how the last runs went, without secrets, pictures or captions."""

import io
import json
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from lora_lightning.runs.folder import runs
from lora_lightning.ui import account
from lora_lightning.workspace import Workspace

MOST_RUNS = 5
TAIL_BYTES = 64 * 1024
HIDDEN = "[hidden]"
SECRETS = [
    re.compile(r"\b(?:hf|sk|ghp|gho|github_pat|xox[bp])[_-][A-Za-z0-9_-]{8,}"),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(r"(?i)(?<=token=)[^\s&\"']+|(?<=password=)[^\s&\"']+|(?<=api_key=)[^\s&\"']+"),
]
SECRET_NAMES = re.compile(r"(?i)token|secret|password|api_?key|credential")
SHORTEST_SECRET = 6


def bundle(workspace: Workspace, findings: Sequence[object]) -> bytes:
    """A ZIP of text files; every one went through `redact`.

    Args:
        workspace: to report on.
        findings: of `doctor`, as plain objects with attributes.
    """
    parts = {
        "doctor.json": json.dumps([vars(finding) for finding in findings], indent=1),
        "versions.json": json.dumps(account.versions(), indent=1),
        "runs.json": json.dumps([vars(run.status()) for run in runs(workspace)], indent=1, ensure_ascii=False),
    }
    for run in runs(workspace)[:MOST_RUNS]:
        parts[f"runs/{run.name}/log.txt"] = run.log_tail(TAIL_BYTES)
        parts[f"runs/{run.name}/recipe.yaml"] = run.recipe_path.read_text(encoding="utf-8")
        parts[f"runs/{run.name}/state.json"] = json.dumps(run.read_state(), indent=1, ensure_ascii=False)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, redact(text))
    return buffer.getvalue()


def redact(text: str) -> str:
    """Text without what looks like a secret, what the environment holds as one, and the name of the home folder."""
    for name, value in os.environ.items():
        if SECRET_NAMES.search(name) and len(value) >= SHORTEST_SECRET:
            text = text.replace(value, HIDDEN)
    for pattern in SECRETS:
        text = pattern.sub(HIDDEN, text)
    return text.replace(str(Path.home()), "~") if len(str(Path.home())) > 1 else text
