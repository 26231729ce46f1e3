"""`doctor`: what this machine has and lacks, each with a fix; nothing heavy is imported."""

import importlib.metadata
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
from huggingface_hub import get_token, try_to_load_from_cache

from lora_lightning.caption.config import PUBLISHED as CAPTIONERS
from lora_lightning.models.config import PUBLISHED as BASES
from lora_lightning.runs.gpu import gpus
from lora_lightning.workspace import Workspace

GIB = 2**30
PACKAGES = ("torch", "lightning", "diffusers", "transformers", "peft", "bitsandbytes", "streamlit", "tensorboard")
MALICIOUS = {("lightning", "2.6.2"), ("lightning", "2.6.3")}


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def examine(workspace: Workspace) -> list[Finding]:
    """Look at everything that a run depends on."""
    return [_python(), _gpu(), _memory(), _disk(workspace), *_packages(), _token(), *_models()]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info >= (3, 11), version, "Install Python 3.11 or newer.")


def _gpu() -> Finding:
    cards = gpus()
    if not cards:
        return Finding(
            "GPU", False, "no NVIDIA GPU or driver is visible", "Small models run on the CPU; FLUX needs 12 GB."
        )
    shown = ", ".join(
        f"{card.name}, {card.memory_mib / 1024:.0f} GB ({card.used_mib / 1024:.1f} used)" for card in cards
    )
    return Finding("GPU", True, shown)


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    detail = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    return Finding("Memory", memory.available > 4 * GIB, detail, "Close other programs; FLUX.1 loads through 32 GiB.")


def _disk(workspace: Workspace) -> Finding:
    folder = next(folder for folder in (workspace.home, *workspace.home.parents) if folder.exists())
    free = shutil.disk_usage(folder).free
    writable = os.access(folder, os.W_OK)
    detail = f"{free / GIB:.0f} GiB free at {workspace.home}" + ("" if writable else ", not writable")
    return Finding(
        "Disk", writable and free > 5 * GIB, detail, "Choose another folder with --home, or free some space."
    )


def _packages() -> list[Finding]:
    found = []
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(Finding(name, False, "not installed", "pip install -r requirements.txt"))
            continue
        bad = (name, version) in MALICIOUS
        detail = f"{version} steals credentials" if bad else version
        found.append(Finding(name, not bad, detail, f"pip uninstall {name}, then change every token on this machine."))
    return found


def _token() -> Finding:
    logged_in = bool(get_token())
    detail = "logged in to the Hugging Face Hub" if logged_in else "not logged in to the Hugging Face Hub"
    return Finding("Token", logged_in, detail, "`hf auth login`; needed for FLUX.1 (gated) and to publish.")


def _models() -> list[Finding]:
    rows = [(name, repo, "model_index.json") for name, repo in BASES.items()]
    rows += [(name, repo, "config.json") for name, repo in CAPTIONERS.items() if name.startswith("joycaption")]
    return [_model(name, repo, marker) for name, repo, marker in rows]


def _model(name: str, repo: str, marker: str) -> Finding:
    cached = try_to_load_from_cache(repo, marker)
    here = isinstance(cached, str) and Path(cached).exists()
    licence = f"accept the licence at https://huggingface.co/{repo}, then " if repo.startswith("black-forest") else ""
    return Finding(
        f"Model {name}", here, f"{repo} {'is' if here else 'is not'} here", f"To use it: {licence}`hf download {repo}`."
    )
