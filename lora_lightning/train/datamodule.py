"""Batches as a function of (seed, k): which pictures, what noise, which sigma; so a run can go on from any k.

Shapes: B batch, C latent channels, H W latent rows and columns.
"""

import copy
import ctypes
import hashlib
import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count, groupby
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lora_lightning.datasets.buckets import batches_per_epoch
from lora_lightning.runs.supervisor import PR_SET_PDEATHSIG
from lora_lightning.train.cache import read
from lora_lightning.train.collate import joined
from lora_lightning.train.encode import Entry, Item, TextEntry, embedded
from lora_lightning.train.module import Batch
from lora_lightning.train.timesteps import Timesteps

Choice = TypeVar("Choice")
MOST_IN_MEMORY = 256


@dataclass(frozen=True)
class Reading:
    """What is read beside the pictures.

    Attributes:
        dropout: share of the samples that see the empty caption.
        empty: its embedding; needed for a dropout above 0.
        neutral: for the preservation, by text: the same with the class word for the trigger.
    """

    dropout: float = 0.0
    empty: TextEntry | None = None
    neutral: Mapping[str, TextEntry] = field(default_factory=dict)


def read_entry(entry: Entry) -> dict[str, Tensor]:
    """The tensors of an entry of the cache.

    Raises:
        JobError: it was damaged or removed since it was filled.
    """
    return read(entry.path)


class Batches(Dataset[Batch]):
    """Batch k, for any k.

    In every epoch each item comes `repeats` times. Items are shuffled within their bucket, cut into batches (the last
    of a bucket may be smaller), and the batches are shuffled. Several ranks share each batch: what rank r of w gets is
    the r-th part of the batch of w times the size, so that together they take the very step that one device would take
    with that batch, and all have the same number of samples of the same size. A last batch that cannot be shared
    evenly is filled up with items of its bucket.

    Args:
        items: what is trained on.
        batch_size: samples in a rank's batch.
        seed: of order and noise.
        timesteps: how sigma is drawn.
        reading: the captions.
        mask_floor: how much counts what a mask leaves out.
        load: reads an entry of the cache.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        batch_size: int,
        seed: int,
        timesteps: Timesteps,
        reading: Reading = Reading(),
        mask_floor: float = 0.0,
        load: Callable[[Entry], dict[str, Tensor]] = read_entry,
    ) -> None:
        self.items, self.batch_size, self.seed = items, batch_size, seed
        self.timesteps, self.reading, self.mask_floor = timesteps, reading, mask_floor
        self.rank, self.world = 0, 1
        self._weighted = any(item.weight != 1 for item in items)
        places = sorted(range(len(items)), key=lambda n: items[n].bucket)
        self._by_bucket = [
            [n for n in members for _ in range(items[n].repeats)]
            for _, members in groupby(places, key=lambda n: items[n].bucket)
        ]
        self._epoch = lru_cache(maxsize=2)(self._shuffled)
        self._load = lru_cache(MOST_IN_MEMORY)(load)

    def of_rank(self, rank: int, world: int) -> "Batches":
        """The share of one of several ranks."""
        mine = copy.copy(self)
        mine.rank, mine.world = rank, world
        mine._epoch = lru_cache(maxsize=2)(mine._shuffled)
        return mine

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return batches_per_epoch(map(len, self._by_bucket), self.batch_size * self.world)

    def members(self, k: int) -> list[int]:
        """The items of batch k, of this rank; all are of one bucket."""
        together = self._together(k)
        share = len(together) // self.world
        return together[self.rank * share : (self.rank + 1) * share]

    def __getitem__(self, k: int) -> Batch:
        members = self.members(k)
        first = self.rank * len(members)
        samples = [self._sample(self.items[item], k, first + place) for place, item in enumerate(members)]
        seed = _derived(self.seed, "forward", k, self.rank)
        return joined(samples)._replace(items=tuple(members), seed=seed)

    def _together(self, k: int) -> list[int]:
        """The items of batch k, of all ranks, in equal shares."""
        members = self._epoch(k // self.per_epoch)[k % self.per_epoch]
        missing = -len(members) % self.world
        if not missing:
            return members
        bucket = next(group for group in self._by_bucket if members[0] in group)
        return members + random.Random(_derived(self.seed, "fill", k)).choices(bucket, k=missing)

    def _sample(self, item: Item, k: int, place: int) -> Batch:
        """One sample: its randomness depends on the seed and its place alone, and is drawn on the CPU always."""
        generator = torch.Generator().manual_seed(_derived(self.seed, k, place))
        choice = random.Random(_derived(self.seed, "choice", k, place))
        latents = self._load(_one_of(item.views, choice))
        mean, std = latents["mean"], latents["std"]
        x0 = mean + std * torch.randn(mean.shape, generator=generator)
        noise = torch.randn(mean.shape, generator=generator)
        text = self._caption(item, choice)
        return Batch(
            x0,
            noise,
            self._sigma(item.bucket.tokens, generator),
            embedded(self._load(text)),
            mask_B1HW=self.mask_floor + (1 - self.mask_floor) * latents["mask"] if "mask" in latents else None,
            weight_B=torch.tensor([item.weight]) if self._weighted else None,
            neutral=embedded(self._load(self.reading.neutral[text.text])) if self.reading.neutral else None,
            reference_BCHW=latents.get("reference"),
        )

    def _caption(self, item: Item, choice: random.Random) -> TextEntry:
        if self.reading.empty and choice.random() < self.reading.dropout:
            return self.reading.empty
        return _one_of(_one_of(item.captions, choice), choice)

    def _sigma(self, tokens: int, generator: torch.Generator) -> Tensor:
        draw = torch.randn if self.timesteps.from_normal else torch.rand
        drawn = draw(1, generator=generator)
        return torch.tensor([self.timesteps.sigma(drawn.item(), tokens)])

    def _shuffled(self, epoch: int) -> list[list[int]]:
        order, size = random.Random(_derived(self.seed, "epoch", epoch)), self.batch_size * self.world
        batches = []
        for members in self._by_bucket:
            mixed = order.sample(members, len(members))
            batches += [mixed[start : start + size] for start in range(0, len(mixed), size)]
        order.shuffle(batches)
        return batches


class BatchData(LightningDataModule):
    """Batches from `start` on, without end: the number of steps is the trainer's to decide.

    Args:
        batches: of all ranks; the trainer's rank gets its share.
        start: the first batch.
        workers: processes that read ahead. With 0 the training process reads: an item is a few megabytes from memory.
    """

    def __init__(self, batches: Batches, start: int, workers: int = 0) -> None:
        super().__init__()
        self.batches, self.start, self.workers = batches, start, workers

    def train_dataloader(self) -> DataLoader[Batch]:
        """The same batches whatever the number of workers."""
        batches = self.batches
        if self.trainer:
            batches = batches.of_rank(self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(
            batches,
            batch_size=None,
            sampler=_From(self.start),
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            num_workers=self.workers,
            multiprocessing_context="fork" if self.workers else None,
            worker_init_fn=_begin_worker,
        )


class _From(Sampler[int]):
    """start, start + 1, ...; it has no length, so that Lightning does not end an epoch by it."""

    def __init__(self, start: int) -> None:
        self._start = start

    def __iter__(self) -> Iterator[int]:
        return count(self._start)


def _begin_worker(_number: int) -> None:
    """A worker dies with its trainer, whose locks it inherits, and leaves the signals of a stop to it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgid(0, 0)


def _as_it_is(batch: Any) -> Any:
    return batch


def _one_of(choices: Sequence[Choice], draw: random.Random) -> Choice:
    return choices[int(draw.random() * len(choices))]


def _derived(*parts: object) -> int:
    """A seed that depends on all parts, well mixed."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "little")
