"""Drafts of recipes: what a form holds, on the disk, so that it survives a page switch, a reload and a restart.

A draft is a recipe file like any other: the command line runs it as it lies there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lora_lightning.errors import InputError
from lora_lightning.recipe import SHIPPED, read
from lora_lightning.runs.files import write_text
from lora_lightning.workspace import Workspace


def path(workspace: Workspace, verb: str) -> Path:
    """The draft of a step."""
    return workspace.home / "drafts" / f"{verb}.yaml"


def load(workspace: Workspace, verb: str) -> dict[str, Any]:
    """The draft's values; empty when there is none, or none that can be read."""
    try:
        return dict(read(path(workspace, verb)))
    except InputError:
        return {}


def save(workspace: Workspace, verb: str, values: Mapping[str, Any]) -> None:
    """Keep the values, if they changed."""
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    file = path(workspace, verb)
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        write_text(file, text)


def preset(name: str) -> dict[str, Any]:
    """The values of a shipped recipe."""
    return dict(read(SHIPPED / f"{name}.yaml"))
