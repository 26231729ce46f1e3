"""`python together.py FOLDER FLUX WHAT`: one of two processes that train the toy together, each step as WHAT says.

Lightning starts the second one by running this very command again.
"""

import json
import os
import signal
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback

from lora_lightning.errors import DatasetError, InputError
from lora_lightning.models.base import open_family
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.ranks import Silent, helping
from lora_lightning.runs.reporter import Reporter
from lora_lightning.train.cache import Cache
from lora_lightning.train.callbacks.pictures import PictureLosses
from lora_lightning.train.encode import fill
from lora_lightning.train.ranks import Ranks, join
from lora_lightning.train.validation import HeldOut
from tests.train.toy import Toy, items

warnings.filterwarnings("ignore")
EVEN = 6
"""So many of the toy's pictures make whole batches of two; an odd one out would be filled up with another."""


class Signal(Callback):
    """SIGTERM to this process when a step is done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_zero_grad(self, trainer, *_) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@dataclass(frozen=True)
class Noted:
    """An entry of the cache that notes who has made it; a bad one cannot be made."""

    path: Path
    rank: int
    bad: bool = False

    def make(self, _family) -> dict[str, torch.Tensor]:
        if self.bad:
            raise DatasetError("a bad picture", "Take it out.")
        with (self.path.parent / "made.txt").open("a") as file:
            file.write(f"{self.rank} {self.path.stem}\n")
        return {"x": torch.zeros(1)}


def cache_together(folder: Path, ranks: Ranks) -> None:
    """Seven entries, then one that only the second process comes by."""
    folder.mkdir(exist_ok=True)
    reporter = Silent(RunFolder(folder))
    entries = [Noted(folder / f"{number}.safetensors", ranks.number) for number in range(7)]
    fill("caching", entries, None, Cache(folder), reporter, ranks)
    assert all(entry.path.is_file() for entry in entries)
    entries.insert(1, Noted(folder / "bad.safetensors", ranks.number, bad=True))
    try:
        fill("caching", entries, None, Cache(folder), reporter, ranks)
    except InputError as error:
        (folder / f"error{ranks.number}.txt").write_text(error.message)


def main(folder: Path, flux: str, stops: list[list[int]]) -> None:
    """Without dropout; with it; and again with a stop for each [rank, step], then to the end."""
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    ranks = join(2, 1, folder)
    family = open_family(flux, device=torch.device("cpu"), dtype=torch.float32)
    toy = Toy(family, ranks.main_first(lambda: items(folder / "cache"))[:EVEN])

    def fit(name: str, *callbacks: Callback, dropout: float = 0.1) -> list[int]:
        """Returns the last step of each process."""
        run = folder / name
        losses = PictureLosses(run / "pictures.jsonl", str, ranks)
        reporter = (Silent if helping() else Reporter)(RunFolder(run))
        with reporter.listening():
            module = toy.fit(run, losses, *callbacks, steps=8, accumulate=2, every=1, ema_decay=0.9, ranks=ranks,
                             batch_size=1, adapter={"dropout": dropout}, reporter=reporter)  # fmt: skip
        ranks.main_only(reporter.run.forget_stop)
        return ranks.gather(module.trainer.global_step)

    cache_together(folder / "entries", ranks)
    losses = HeldOut(toy.pictures[:3], seed=1, batch_size=8, ranks=ranks).losses(toy.module())
    if ranks.main:
        np.save(folder / "validation.npy", losses)
    fit("plain", dropout=0.0)
    fit("straight")
    ends = [fit("stopped", *[Signal(step)] * (rank == ranks.number)) for rank, step in stops]
    ends.append(fit("stopped"))
    if ranks.main:
        (folder / "ends.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
