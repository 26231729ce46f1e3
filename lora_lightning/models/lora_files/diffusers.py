"""The LoRA file: PEFT keys with alpha / rank folded into A, and a header.

The one variant that ComfyUI, Forge and diffusers all load at the right strength: a file that names its alpha only in
diffusers' `lora_adapter_metadata` is wrong elsewhere, and one with `.alpha` tensors as well is refused by diffusers.
"""

import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from diffusers import DiffusionPipeline, ModelMixin
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lora_lightning.errors import LoraFileError
from lora_lightning.models.lora import TRAINED, adapters
from lora_lightning.runs.files import write_atomic

PREFIX = "transformer."


@dataclass(frozen=True)
class LoraFile:
    """What a LoRA file holds; keys are `transformer.MODULE.lora_A.weight` (R x I) and `lora_B.weight` (O x R)."""

    tensors: dict[str, Tensor]
    header: dict[str, str]


def write(path: Path, transformer: ModelMixin, header: Mapping[str, str], dtype: torch.dtype) -> Path:
    """Write the trained adapter in `dtype`, atomically, with its content's hash added to the header."""
    tensors: dict[str, Tensor] = {}
    for adapter in adapters(transformer, TRAINED):
        folded = adapter.a_RI.float() * adapter.scale
        tensors[f"{PREFIX}{adapter.module}.lora_A.weight"] = folded.to("cpu", dtype).contiguous()
        tensors[f"{PREFIX}{adapter.module}.lora_B.weight"] = adapter.b_OR.to("cpu", dtype).contiguous()
    content = _content_hash(safetensors.torch.save(tensors))
    complete = {**header, "modelspec.hash_sha256": f"0x{content}", "sshs_model_hash": content}
    data = safetensors.torch.save(tensors, metadata={"format": "pt", **complete})
    return write_atomic(path, lambda file: file.write(data))


def read(path: Path) -> LoraFile:
    """Read a LoRA file of this kind.

    Raises:
        LoraFileError: it is absent, damaged, or holds something else.
    """
    header = read_header(path)
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    return LoraFile(tensors, header)


def read_header(path: Path) -> dict[str, str]:
    """The header of a LoRA file of any tool; its weights are not read.

    Raises:
        LoraFileError: it is absent, damaged, or no LoRA.
    """
    if not path.is_file():
        raise LoraFileError(f"there is no LoRA file {path}", "Give a .safetensors file or a finished LoRA's name.")
    try:
        with safe_open(path, framework="pt") as file:
            keys, header = list(file.keys()), dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise LoraFileError(
            f"{path} is no readable .safetensors file: {error}", "It may be damaged; copy or download it again."
        ) from None
    if not any("lora" in key for key in keys):
        raise LoraFileError(f"{path} holds no LoRA ({len(keys)} other tensors)", "Give the file of a LoRA for FLUX.")
    return header


def load(pipeline: DiffusionPipeline, path: Path, name: str) -> None:
    """Load a LoRA file of any layout that diffusers knows as the adapter `name`, beside those already there.

    Raises:
        LoraFileError: it is absent, damaged, no LoRA, or for another kind of model.
    """
    read_header(path)
    try:
        with _without_chatter():
            pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name)
    except (ValueError, RuntimeError, KeyError) as error:
        raise LoraFileError(
            f"{path} does not fit this base model: {str(error).splitlines()[0]}",
            "Use a LoRA that was trained for this kind of model.",
        ) from error
    if not any(True for _ in adapters(pipeline.transformer, name)):
        raise LoraFileError(
            f"{path} holds no layer of this base model", "Use a LoRA that was trained for this kind of model."
        )


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Drop two warnings about what is meant: a second adapter, and a pipeline without text encoders."""
    chatty = logging.getLogger("diffusers.loaders.lora_base")
    level = chatty.level
    chatty.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
            yield
    finally:
        chatty.setLevel(level)


def _content_hash(data: bytes) -> str:
    """SHA-256 of a safetensors file's tensors, without its header."""
    start = 8 + int.from_bytes(data[:8], "little")
    return hashlib.sha256(memoryview(data)[start:]).hexdigest()
