"""The device that this process works on."""

import resource
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch

from lora_lightning.models.config import LOW_VRAM_BELOW_GIB
from lora_lightning.models.planner import Card


def choose_device() -> torch.device:
    """The GPU when there is one (the frame of a job shows it only its own), else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # torch 2.11's cuDNN attention returns wrong gradients when the output's gradient is strided, as in FLUX's single
    # blocks; FlashAttention is right.
    torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device("cuda", torch.cuda.current_device())


def wants_low_vram(setting: Literal["auto"] | bool, device: torch.device) -> bool:
    """Whether to quantise and recompute: as set, or on cards below 40 GB."""
    if setting != "auto":
        return setting
    return device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory < LOW_VRAM_BELOW_GIB << 30


def card_here(device: torch.device) -> Card | None:
    """The GPU, with the memory that is free now or that this process may have, whichever is less; None for the CPU."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device)
    allowed = round(total * torch.cuda.get_per_process_memory_fraction(device))
    return Card(min(free + held, allowed), torch.cuda.get_device_capability(device))


def has_room(device: torch.device, files: Iterable[Path]) -> bool:
    """Whether the device can hold the weights in these files and folders at once; the CPU is taken to."""
    card = card_here(device)
    found = (file for path in files for file in (path.rglob("*.safetensors") if path.is_dir() else (path,)))
    return card is None or sum(file.stat().st_size for file in found) <= card.usable


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory_mib` count from here; the RAM of a process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mib(device: torch.device) -> int:
    """The most memory that tensors took on the GPU, or that this process took in RAM."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device) >> 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def isolated_rng() -> AbstractContextManager[None]:
    """Whatever is drawn inside leaves the global random state, of the CPU and of the GPU in use, as it was."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    return torch.random.fork_rng(devices=devices)
