"""What all stages share: the build folder, batches from worker processes, clock, team, averages, saving."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from ..world.atlas import Atlas
from ..world.scene import Sampler


@dataclass(frozen=True)
class Settings:
    """How a stage is run; `toy` shrinks batches so that a CPU can try the whole script."""

    folder: Path
    seconds: float
    device: str = "cuda"
    toy: bool = False
    workers: int = 6
    seed: int = 0
    eager: bool = False

    def batch(self, full: int) -> int:
        """The batch size to use instead of `full`."""
        return 4 if self.toy else full

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device == "cuda"

    def compiled(self, function: Any) -> Any:
        """`torch.compile` where it pays."""
        return torch.compile(function) if self.cuda and not self.eager else function

    def autocast(self) -> torch.autocast:
        """bf16 on a GPU, nothing on a CPU."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.cuda)


@dataclass
class World:
    """The build folder's atlas and words."""

    atlas: Atlas
    fillers: list[str]

    @classmethod
    def load(cls, folder: Path) -> World:
        """Read what stage `prepare` wrote."""
        return cls(Atlas.load(folder / "atlas.npz"), json.loads((folder / "fillers.json").read_text()))

    @property
    def words(self) -> list[str]:
        """Names of the known drawings, in atlas order."""
        return self.atlas.words

    def sampler(self, styles: list[int], **options: Any) -> Sampler:
        """A scene sampler over these atlas rows."""
        return Sampler(len(self.words), self.atlas.present.tolist(), styles, **options)


class _Stream(IterableDataset[Any]):
    def __init__(self, make: Callable[[random.Random], Any], seed: int) -> None:
        self.make, self.seed = make, seed

    def __iter__(self) -> Iterator[Any]:
        torch.set_num_threads(1)
        worker = torch.utils.data.get_worker_info()
        draw = random.Random(self.seed * 1000 + (worker.id if worker else 999))
        while True:
            yield self.make(draw)


def batches(make: Callable[[random.Random], Any], settings: Settings) -> Iterator[Any]:
    """Endless batches; `make` runs in worker processes and returns one whole batch."""
    workers = 0 if settings.toy else settings.workers
    loader = DataLoader(
        _Stream(make, settings.seed),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=settings.cuda,
    )
    return iter(loader)


class Team:
    """One process a GPU under torchrun: equal weights, different data, averaged gradients and one common clock."""

    def __init__(self, settings: Settings) -> None:
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        self.progress = 0.0
        self.pending: torch.Tensor | None = None
        if self.size > 1:
            if settings.cuda:
                torch.cuda.set_device(self.rank)
            dist.init_process_group("nccl" if settings.cuda else "gloo")

    def start(self, parameters: list[nn.Parameter], seed: int) -> None:
        """Everyone takes the first process's weights, then draws its own noise."""
        if self.size > 1:
            for parameter in parameters:
                dist.broadcast(parameter.data, 0)
        torch.manual_seed(seed + self.rank)

    def average(self, parameters: list[nn.Parameter], progress: float) -> None:
        """Average gradients and progress over the team; progress is read one step late, so nobody waits for it."""
        if self.size == 1:
            self.progress = progress
        else:
            self.progress = 0.0 if self.pending is None else float(self.pending)
            device = parameters[0].device
            parts = [parameter.grad for parameter in parameters] + [torch.tensor([progress], device=device)]
            flat = torch.cat([part.flatten() for part in parts])
            dist.all_reduce(flat)
            flat /= self.size
            for part, value in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
                part.copy_(value.view_as(part))
            self.pending = parts[-1]


@dataclass
class Clock:
    """Wall-clock progress from 0 to 1: schedules by time, so that a stage ends when its budget does."""

    seconds: float
    peak: float  # learning rate
    warmup: int = 200  # steps
    floor: float = 0.02  # last learning rate as a share of the peak
    team: Team | None = None
    started: float = field(default_factory=time.monotonic)
    step: int = 0

    def progress(self) -> float:
        """Share of the time that has passed."""
        return min(1.0, (time.monotonic() - self.started) / self.seconds)

    def tick(self, optimizer: torch.optim.Optimizer) -> bool:
        """Set this step's learning rate; False once the time is up."""
        progress = self.team.progress if self.team and self.step else self.progress()
        self.step += 1
        share = self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = self.peak * share * min(1.0, self.step / self.warmup)
        return progress < 1.0

    def log(self, name: str, every: int, **values: torch.Tensor | float) -> None:
        """Print a line every few steps."""
        if (self.step % every == 1 or every == 1) and (self.team is None or self.team.rank == 0):
            passed = time.monotonic() - self.started
            numbers = " ".join(f"{key}={float(torch.as_tensor(value).detach()):.4f}" for key, value in values.items())
            print(f"[{name}] {passed:6.1f}s step {self.step} {numbers}", flush=True)


class Average:
    """Exponential moving average of trained parameters (f32), warmed up so that early steps do not linger."""

    def __init__(self, modules: dict[str, nn.Module], decay: float) -> None:
        self.modules, self.decay, self.count = modules, decay, 0
        self.live = [p for module in modules.values() for p in module.parameters()]
        self.kept = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the live weights."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self.kept, self.live, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange live and averaged weights (call twice to undo)."""
        for live, kept in zip(self.live, self.kept, strict=True):
            held = live.clone()
            live.copy_(kept)
            kept.copy_(held)


def adamw(
    parameters: list[nn.Parameter], settings: Settings, decay: float = 0.01, beta: float = 0.99
) -> torch.optim.AdamW:
    """AdamW over all parameters; the clock sets the learning rate."""
    return torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, beta), weight_decay=decay, fused=settings.cuda)


def save_module(module: nn.Module, path: Path, *, half: bool = False) -> None:
    """Write the module's own tensors (shared ones once), complete or not at all."""
    seen: dict[int, str] = {}
    state = {}
    for key, value in module.state_dict().items():
        if value.data_ptr() in seen and value.numel():
            continue
        seen[value.data_ptr()] = key
        state[key] = (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous()
    partial = path.with_suffix(".partial")
    save_file(state, partial)
    partial.replace(path)


def load_module(module: nn.Module, path: Path) -> nn.Module:
    """Read what `save_module` wrote (shared tensors may be absent)."""
    state = {key: value.float() if value.is_floating_point() else value for key, value in load_file(path).items()}
    result = module.load_state_dict(state, strict=False)
    if result.unexpected_keys:
        raise ValueError(f"{path}: unexpected tensors {result.unexpected_keys[:3]}")
    return module


def resume(module: nn.Module, path: Path) -> None:
    """Go on from earlier weights of the same stage, if there are any (the optimizer starts afresh)."""
    if path.exists():
        load_module(module, path)
        print(f"[build] going on from {path}", flush=True)
