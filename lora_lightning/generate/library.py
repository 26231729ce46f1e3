"""LoRA files by the names that people call them; importing this needs no torch."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from lora_lightning.errors import LoraFileError


@dataclass(frozen=True)
class LoraSource:
    """A LoRA file, by the name that it goes by."""

    name: str
    path: Path

    @cached_property
    def sha256(self) -> str:
        """Of the whole file, in hex."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @cached_property
    def short_hash(self) -> str:
        """How WebUIs and model hosts find the file: SHA-256 of its tensors without the header, 12 digits ("AutoV3")."""
        data = memoryview(self.path.read_bytes())
        return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()[:12]


def find(name: str, finished: Mapping[str, Path]) -> LoraSource:
    """The file of a LoRA given as a finished one's name, or as a .safetensors file.

    Raises:
        LoraFileError: it is neither; the hint names those that are near.
    """
    if name in finished:
        return LoraSource(name, finished[name])
    path = Path(name).expanduser()
    if path.suffix == ".safetensors" and path.is_file():
        return LoraSource(path.stem, path.resolve())
    near = get_close_matches(name, finished, n=3)
    if near:
        hint = f"Did you mean {' or '.join(map(repr, near))}?"
    else:
        hint = (
            f"Choose one of: {', '.join(sorted(finished))}." if finished else "Train one, or give a .safetensors file."
        )
    raise LoraFileError(f"there is no LoRA {name!r}", hint)
