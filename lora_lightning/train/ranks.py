"""Processes that train one adapter together: started by Lightning, by torchrun or by SLURM, or just this one.

Gradients go through Lightning's strategy. What the processes agree on (a stop, an error, whose turn it is) goes through
a group of its own on the CPU, so that it waits for no GPU and may wait for long.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy

from lora_lightning.errors import InputError, JobError, LoraLightningError, Stopped, translate
from lora_lightning.runs.ranks import SHARED_RUN, started_together

Told = TypeVar("Told")
PATIENCE = timedelta(hours=24)
"""One process may draw, save or wait for space on the disk while the others wait for it."""


@dataclass(frozen=True)
class Ranks:
    """One of `count` processes; the main one is number 0.

    Attributes:
        number: its own.
        count: of all.
        num_nodes: machines that they are on.
        group: what they agree on goes through it.
        sharded: whether each holds a part of the base only, so that a forward pass needs them all.
    """

    number: int = 0
    count: int = 1
    num_nodes: int = 1
    group: Any = None
    sharded: bool = False

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.number == 0

    @property
    def devices(self) -> int:
        """Processes of one machine."""
        return self.count // self.num_nodes

    def gather(self, told: Told) -> list[Told]:
        """What each process tells, in their order; all must call this."""
        if self.count == 1:
            return [told]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, told, group=self.group)
        return found

    def share(self, work: Sequence[Told]) -> Sequence[Told]:
        """The part of the work that is this process's."""
        return work[self.number :: self.count]

    @contextmanager
    def together(self) -> Iterator[None]:
        """All wait here for each other's end; an error of one is an error of all.

        Raises:
            LoraLightningError: another process has met it.
        """
        met: BaseException | None = None
        try:
            yield
        except Exception as error:
            if self.count == 1:
                raise
            met = error
        known = translate(met) if met else None
        everyones = self.gather((known.exit_code, known.message, known.hint) if known else None)
        if met:
            raise met
        for told in everyones:
            if told:
                raise _rebuilt(*told)

    def main_first(self, work: Callable[[], Told]) -> Told:
        """The main process works while the others wait; then they find what it has written, and go over it."""
        if self.main:
            with self.together():
                return work()
        with self.together():
            pass
        return work()

    def main_only(self, work: Callable[[], object]) -> None:
        """The others wait meanwhile."""
        with self.together():
            if self.main:
                work()


def join(devices: int | Literal["auto"], num_nodes: int, run: Path, strategy: str = "ddp") -> Ranks:
    """Start the processes that train together, unless torchrun or SLURM has; each of them comes by here.

    Args:
        devices: of each machine.
        num_nodes: machines.
        run: the folder of the run, for those that are started.
        strategy: ddp, or fsdp for a base in shards.

    Raises:
        InputError: another number of processes was started from outside, or SLURM has started none.
    """
    here = max(1, torch.cuda.device_count()) if devices == "auto" else devices
    outside = started_together()
    if outside > 1 and outside != here * num_nodes:
        raise InputError(
            f"{outside} processes were started, but train.devices={here} and train.num_nodes={num_nodes} need "
            f"{here * num_nodes}",
            f"Set train.devices={max(1, outside // num_nodes)}, or start the command by itself.",
        )
    if here * num_nodes == 1:
        return Ranks()
    if outside == 1 and SLURMEnvironment.detect():
        raise InputError(
            f"this is a SLURM job, but its {here * num_nodes} tasks were not started",
            f"Put srun before the command, with {here} tasks on each machine.",
        )
    os.environ[SHARED_RUN] = str(run)
    accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    fabric = Fabric(accelerator=accelerator, devices=here, num_nodes=num_nodes, strategy=DDPStrategy(timeout=PATIENCE))
    fabric.launch()
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    return Ranks(fabric.global_rank, fabric.world_size, num_nodes, group, strategy == "fsdp")


def _rebuilt(exit_code: int, message: str, hint: str) -> LoraLightningError:
    """An error as another process has met it."""
    kinds: dict[int, type[LoraLightningError]] = {InputError.exit_code: InputError, Stopped.exit_code: Stopped}
    return kinds.get(exit_code, JobError)(message, hint)
