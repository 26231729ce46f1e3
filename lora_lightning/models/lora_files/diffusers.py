"""The LoRA file: PEFT keys with the scale folded into A, and a header.

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
from lora_lightning.models.lora import TRAINED, adapted, adapters, base_weight, kind_of
from lora_lightning.models.lora_files import bfl, lycoris
from lora_lightning.runs.files import write_atomic

PREFIX = "transformer."
MAGNITUDE = ".lora_magnitude_vector"
EXACT = (".alpha", MAGNITUDE, ".dora_scale")
"""Kept in fp32: they scale whole weights, so that their rounding could be as large as what was learned."""


@dataclass(frozen=True)
class LoraFile:
    """What a LoRA file holds; keys are `transformer.MODULE.lora_A.weight` (R x I) and `lora_B.weight` (O x R)."""

    tensors: dict[str, Tensor]
    header: dict[str, str]


def write(
    path: Path,
    transformer: ModelMixin,
    header: Mapping[str, str],
    dtype: torch.dtype,
    tensors: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write the trained adapter in `dtype`, atomically, with its content's hash added to the header.

    Args:
        path: of the file.
        transformer: with the trained adapter.
        header: what the file says of itself.
        dtype: of its weights.
        tensors: the adapter as the file shall hold it, in fp32; by diffusers' names when left out.
    """
    if tensors is None:
        _, layer = next(adapted(transformer, TRAINED))
        tensors = lycoris.tensors(transformer) if kind_of(layer) in ("lokr", "loha") else factors(transformer)
    tensors = {
        key: tensor.to("cpu", torch.float32 if key.endswith(EXACT) else dtype).contiguous()
        for key, tensor in tensors.items()
    }
    content = _content_hash(safetensors.torch.save(tensors))
    complete = {**header, "modelspec.hash_sha256": f"0x{content}", "sshs_model_hash": content}
    data = safetensors.torch.save(tensors, metadata={"format": "pt", **complete})
    return write_atomic(path, lambda file: file.write(data))


def factors(transformer: ModelMixin) -> dict[str, Tensor]:
    """The trained LoRA or DoRA by PEFT's keys, in fp32.

    DoRA's m comes twice: as diffusers reads it, and as ComfyUI does, which divides by the norms of W where DoRA divides
    by those of W + B A; diffusers passes over the latter.
    """
    tensors: dict[str, Tensor] = {}
    for (_, layer), adapter in zip(adapted(transformer, TRAINED), adapters(transformer, TRAINED), strict=True):
        key = f"{PREFIX}{adapter.module}"
        tensors[f"{key}.lora_A.weight"] = adapter.a_RI.float() * adapter.scale
        tensors[f"{key}.lora_B.weight"] = adapter.b_OR.float()
        if adapter.magnitude_O is not None:
            base_OI = base_weight(layer)
            norms = base_OI.norm(dim=1) / (base_OI + adapter.delta_OI()).norm(dim=1)
            tensors[f"{key}{MAGNITUDE}"] = adapter.magnitude_O.float()
            tensors[f"{key}.dora_scale"] = (adapter.magnitude_O.float() * norms)[:, None]
    return tensors


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
    if not any("lora" in key for key in keys) and not lycoris.is_lycoris(keys):
        raise LoraFileError(f"{path} holds no LoRA ({len(keys)} other tensors)", "Give the file of a LoRA for FLUX.")
    return header


def kind_in(path: Path) -> str:
    """What a readable file holds: lora, dora, lokr or loha."""
    marks = {"lokr": ".lokr_", "loha": ".hada_", "dora": MAGNITUDE}
    keys = _keys(path)
    return next((kind for kind, mark in marks.items() if any(mark in key for key in keys)), "lora")


def load(pipeline: DiffusionPipeline, path: Path, name: str) -> None:
    """Load a LoRA file of any known layout as the adapter `name`, beside those already there.

    Raises:
        LoraFileError: it is absent, damaged, no LoRA, or for another kind of model.
    """
    read_header(path)
    kind, keys = kind_in(path), _keys(path)
    if kind == "lora" and any(key.endswith(".dora_scale") for key in keys):
        raise LoraFileError(
            f"{path} is a DoRA of another tool: tools disagree on what its dora_scale means",
            "Use a plain LoRA, or a DoRA saved by PEFT or by this program.",
        )
    try:
        with _without_chatter():
            if kind in ("lokr", "loha"):
                lycoris.load(pipeline.transformer, safetensors.torch.load_file(path), name)
            elif bfl.is_bfl(keys):
                held = bfl.to_peft(safetensors.torch.load_file(path), pipeline.transformer)
                pipeline.load_lora_weights(held, adapter_name=name)
            else:
                pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name)
    except (ValueError, RuntimeError, KeyError) as error:
        raise LoraFileError(
            f"{path} does not fit this base model: {str(error).splitlines()[0]}",
            "Use a LoRA that was trained for this kind of model.",
        ) from error
    if kind == "dora":
        _restore_magnitudes(pipeline.transformer, path, name)
    if not any(True for _ in adapted(pipeline.transformer, name)):
        raise LoraFileError(
            f"{path} holds no layer of this base model", "Use a LoRA that was trained for this kind of model."
        )


def _restore_magnitudes(transformer: ModelMixin, path: Path, name: str) -> None:
    """Undo peft's rounding of them to the base's dtype."""
    weights = safetensors.torch.load_file(path)
    for module, layer in adapted(transformer, name):
        parameter = layer.lora_magnitude_vector[name].weight
        exact = weights.get(f"{PREFIX}{module}{MAGNITUDE}", parameter.data)
        parameter.data = exact.to(parameter.device, torch.float32)


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


def _keys(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _content_hash(data: bytes) -> str:
    """SHA-256 of a safetensors file's tensors, without its header."""
    start = 8 + int.from_bytes(data[:8], "little")
    return hashlib.sha256(memoryview(data)[start:]).hexdigest()
