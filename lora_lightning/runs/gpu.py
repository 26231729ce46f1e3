"""The devices of this machine, seen without torch, and one lock for each: one job a GPU, the rest queue."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import pynvml

from lora_lightning.runs.files import Lock
from lora_lightning.workspace import Workspace


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU as the driver reports it."""

    index: int
    name: str
    memory_mib: int
    used_mib: int
    utilisation_percent: int
    temperature_celsius: int
    power_watts: float
    capability: tuple[int, int] = (0, 0)
    """What it computes with, such as (9, 0) for Hopper; (0, 0) where the driver does not say."""


_only: ContextVar[str] = ContextVar("only", default="")


@contextmanager
def alone(device: str) -> Iterator[None]:
    """Within, `gpus` finds this device only, as the job does that is given it; '' changes nothing."""
    token = _only.set(device)
    try:
        yield
    finally:
        _only.reset(token)


def gpus() -> list[Gpu]:
    """The GPUs that this process may use; empty without a driver.

    The driver's library is never shut down: to begin with it takes a while, and from then on nothing.
    """
    try:
        pynvml.nvmlInit()
        return [_read(index) for index in range(pynvml.nvmlDeviceGetCount()) if _visible(index)]
    except pynvml.NVMLError:
        return []


def _visible(index: int) -> bool:
    """Whether CUDA_VISIBLE_DEVICES, which names GPUs by number or by the start of their UUID, lets it through."""
    if _only.get() not in ("", f"cuda-{index}"):
        return False
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return True
    named = [part.strip() for part in visible.split(",")]
    if str(index) in named:
        return True
    uuids = tuple(name for name in named if name.startswith("GPU-"))
    return bool(uuids) and str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index))).startswith(uuids)


def _read(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name = pynvml.nvmlDeviceGetName(handle)
    temperature, power, busy, capability = 0, 0.0, 0, (0, 0)
    with suppress(pynvml.NVMLError):  # virtual GPUs report only some of these
        busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
        temperature = pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
        power = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
    with suppress(pynvml.NVMLError):
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        capability = (int(major), int(minor))
    return Gpu(index, str(name), memory.total >> 20, memory.used >> 20, busy, temperature, power, capability)


@dataclass(frozen=True)
class Device:
    """Something that runs one job at a time: `cuda-0`, `cuda-1`, ... or `cpu`."""

    name: str
    lock_path: Path

    def holder(self) -> str:
        """The run that uses the device now, or nothing."""
        if not Lock(self.lock_path).held():
            return ""
        return self.lock_path.read_text(encoding="utf-8").strip() or "another process"


def devices(workspace: Workspace) -> list[Device]:
    """What jobs can run on. A GPU is shared by every workspace of the machine, the CPU by this one's jobs."""
    found = gpus()
    if not found:
        return [Device("cpu", workspace.home / "locks" / "cpu.lock")]
    shared = Path(tempfile.gettempdir()) / f"lora-lightning-{os.getuid()}"
    return [Device(f"cuda-{gpu.index}", shared / f"cuda-{gpu.index}.lock") for gpu in found]
