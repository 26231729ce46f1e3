"""Latents and text embeddings, kept by content: the name of an entry is a hash of everything it depends on.

An entry can therefore never be stale. It can be damaged, which the hash inside it shows; then it is made again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lora_lightning.errors import JobError
from lora_lightning.models.base import Encoder
from lora_lightning.runs.files import read_json, write_atomic, write_json


class Cache:
    """A folder of safetensors files; safe to delete, and to share between runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, kind: str, **depends_on: object) -> Path:
        """Where the entry that depends on these lies, made or not."""
        key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()
        return self.folder / kind / key[:2] / f"{key}.safetensors"

    def ensure(self, path: Path, make: Callable[[], Mapping[str, Tensor]]) -> None:
        """Make an entry that is absent or damaged."""
        if _sound(path) is None:
            tensors = {name: tensor.cpu().contiguous() for name, tensor in make().items()}
            data = safetensors.torch.save(tensors, metadata={"sha256": _digest(tensors)})
            write_atomic(path, lambda file: file.write(data))

    def identity(self, encoder: Encoder) -> str:
        """A hash of what the encoder's output depends on; files are read once and remembered by size and time."""
        memory_path = self.folder / "identities.json"
        memory = read_json(memory_path)
        known = len(memory)
        total = hashlib.sha256(encoder.facts.encode())
        for folder in encoder.folders:
            for path in sorted(path for path in (folder, *folder.rglob("*")) if path.is_file()):
                total.update(f"{folder.name}/{path.relative_to(folder)} {_file_hash(path, memory)}\n".encode())
        if len(memory) > known:
            write_json(memory_path, memory)
        return total.hexdigest()


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of an entry that was ensured.

    Raises:
        JobError: it was damaged or removed since.
    """
    tensors = _sound(path)
    if tensors is None:
        raise JobError(f"the cache entry {path} was damaged or removed", "Resume the run: it is made again.")
    return tensors


def _sound(path: Path) -> dict[str, Tensor] | None:
    """The entry's tensors, or None when it is absent or not what was written."""
    try:
        with safe_open(path, framework="pt") as file:
            # Copied: what safetensors gives lies in the mapped file, and changes or crashes with it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
            signed = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    return tensors if signed == _digest(tensors) else None


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _file_hash(path: Path, memory: dict[str, str]) -> str:
    state = path.stat()
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
    if key not in memory:
        with path.open("rb") as file:
            memory[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return memory[key]
