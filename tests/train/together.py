"""`python together.py FOLDER FLUX WHAT`: one of two processes that train the toy together, each step as WHAT says.

Lightning starts the second one by running this very command again.
"""

import json
import os
import signal
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback
from torch.distributed.tensor import DTensor

from lora_lightning.errors import DatasetError, InputError
from lora_lightning.models.base import open_family
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.ranks import Silent, helping
from lora_lightning.runs.reporter import Reporter
from lora_lightning.train.cache import Cache
from lora_lightning.train.callbacks.pictures import PictureLosses
from lora_lightning.train.datamodule import Batches
from lora_lightning.train.encode import fill
from lora_lightning.train.ranks import Ranks, join
from lora_lightning.train.shards import main_alone, shard
from lora_lightning.train.timesteps import Timesteps
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


def look_in_shards(toy: Toy, ranks: Ranks, folder: Path) -> None:
    """Both validate; the main process draws from a base in shards, and meets an error that all hear of."""
    module, batch = (
        toy.module(adapter={"dropout": 0.0}),
        Batches(toy.pictures, batch_size=1, seed=5, timesteps=Timesteps())[0],
    )
    expected = module.losses(batch).each_B.detach()
    shard(module.transformer, torch.device("cpu"), ranks)
    losses = HeldOut(toy.pictures[:3], seed=1, batch_size=8, ranks=ranks).losses(module)
    if ranks.main:
        np.save(folder / "validation.npy", losses)
    found, random = [], torch.get_rng_state()
    with torch.no_grad():
        main_alone(module.transformer, ranks, lambda: found.extend(module.losses(batch).each_B for _ in range(2)))
    assert torch.equal(random, torch.get_rng_state())
    parts = [weight.to_local().numel() for weight in module.transformer.parameters() if isinstance(weight, DTensor)]
    whole = [weight.numel() for weight in module.transformer.parameters() if isinstance(weight, DTensor)]
    assert 0.45 < sum(parts) / sum(whole) < 0.55, (sum(parts), sum(whole))

    def fail() -> None:
        module.losses(batch)
        raise DatasetError("a bad sample", "Take it out.")

    try:
        main_alone(module.transformer, ranks, fail)
    except InputError as error:
        (folder / f"sample{ranks.number}.txt").write_text(error.message)
    assert len(found) == 2 * ranks.main
    assert all(torch.equal(each, expected) for each in found)


def main(folder: Path, flux: str, stops: list[list[int]]) -> None:
    """Without dropout; with it; and again with a stop for each [rank, step], then to the end.

    What is stopped changes its strategy each time.
    """
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    ranks = join(2, 1, folder)
    in_shards = replace(ranks, sharded=True)
    family = open_family(flux, device=torch.device("cpu"), dtype=torch.float32)
    toy = Toy(family, ranks.main_first(lambda: items(folder / "cache"))[:EVEN])

    def fit(name: str, *callbacks: Callback, dropout: float = 0.1, ranks: Ranks = ranks) -> list[int]:
        """Returns the last step of each process."""
        run = folder / name
        losses = PictureLosses(run / "pictures.jsonl", str, ranks)
        reporter = (Silent if helping() else Reporter)(RunFolder(run))
        module = toy.module(ema_decay=0.9, adapter={"dropout": dropout})
        if ranks.sharded:
            shard(module.transformer, torch.device("cpu"), ranks)
            module.transformer.enable_gradient_checkpointing()
        with reporter.listening():
            toy.fit(run, losses, *callbacks, steps=8, accumulate=2, every=1, ranks=ranks, batch_size=1, module=module,
                    reporter=reporter)  # fmt: skip
        ranks.main_only(reporter.run.forget_stop)
        return ranks.gather(module.trainer.global_step)

    cache_together(folder / "entries", ranks)
    look_in_shards(toy, in_shards, folder)
    fit("plain", dropout=0.0)
    fit("straight")
    ends = [
        fit("stopped", *[Signal(step)] * (rank == ranks.number), ranks=here)
        for (rank, step), here in zip(stops, (ranks, in_shards), strict=True)
    ]
    ends.append(fit("stopped", ranks=in_shards))
    if ranks.main:
        (folder / "ends.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
