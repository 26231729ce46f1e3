"""Batches as a function of (seed, k): which pictures, what noise, which sigma; so a run can go on from any k.

Shapes: B batch, C latent channels, H W latent rows and columns.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lora_lightning.models import flow
from lora_lightning.models.base import TextEmbedding
from lora_lightning.train.cache import read
from lora_lightning.train.encode import Item, embedding
from lora_lightning.train.module import Batch

MOST_IN_MEMORY = 256


class Batches(Dataset[Batch]):
    """Batch k, for any k.

    In every epoch each item comes once. Items are shuffled within their bucket, cut into batches (the last of a bucket
    may be smaller), and the batches are shuffled.

    Args:
        items: what is trained on.
        batch_size: items in a batch.
        seed: of order and noise.
        timesteps: name of a sampler of sigma in `flow.SAMPLERS`.
        shift: "none", "resolution", or a factor.
    """

    def __init__(
        self, items: Sequence[Item], *, batch_size: int, seed: int, timesteps: str, shift: str | float
    ) -> None:
        self.items, self.batch_size, self.seed = items, batch_size, seed
        self.sample_sigma, self.shift = flow.SAMPLERS[timesteps], shift
        buckets = sorted({item.bucket for item in items})
        self._by_bucket = [[n for n, item in enumerate(items) if item.bucket == bucket] for bucket in buckets]
        self._per_epoch = sum(-(-len(members) // batch_size) for members in self._by_bucket)
        self._epoch = lru_cache(maxsize=2)(self._shuffled)
        self._latents = lru_cache(MOST_IN_MEMORY)(read)
        self._text = lru_cache(MOST_IN_MEMORY)(embedding)

    def members(self, k: int) -> list[int]:
        """The items of batch k; all are of one bucket."""
        return self._epoch(k // self._per_epoch)[k % self._per_epoch]

    def __getitem__(self, k: int) -> Batch:
        samples = [self._sample(self.items[item], (k, place)) for place, item in enumerate(self.members(k))]
        if len(samples) == 1:
            return samples[0]
        return Batch(
            torch.cat([sample.x0_BCHW for sample in samples]),
            torch.cat([sample.noise_BCHW for sample in samples]),
            torch.cat([sample.sigma_B for sample in samples]),
            TextEmbedding(
                torch.cat([sample.text.sequence_BLD for sample in samples]),
                torch.cat([sample.text.pooled_BD for sample in samples]),
            ),
        )

    def _sample(self, item: Item, place: tuple[int, int]) -> Batch:
        """One sample: its randomness depends on the seed and its place alone, and is drawn on the CPU always."""
        generator = torch.Generator().manual_seed(_derived(self.seed, *place))
        latents = self._latents(item.latents)
        mean, std = latents["mean"], latents["std"]
        x0 = mean + std * torch.randn(mean.shape, generator=generator)
        noise = torch.randn(mean.shape, generator=generator)
        return Batch(x0, noise, self._sigma(mean, generator), self._text(item.text))

    def _sigma(self, latents_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        tokens = (latents_BCHW.shape[-2] // 2) * (latents_BCHW.shape[-1] // 2)
        return flow.shift_sigma(self.sample_sigma(1, generator), flow.shift_factor(self.shift, tokens))

    def _shuffled(self, epoch: int) -> list[list[int]]:
        order = random.Random(_derived(self.seed, "epoch", epoch))
        batches = []
        for members in self._by_bucket:
            mixed = order.sample(members, len(members))
            batches += [mixed[start : start + self.batch_size] for start in range(0, len(mixed), self.batch_size)]
        order.shuffle(batches)
        return batches


class BatchData(LightningDataModule):
    """Batches from `start` on, without end: the number of steps is the trainer's to decide."""

    def __init__(self, batches: Batches, start: int) -> None:
        super().__init__()
        self.batches, self.start = batches, start

    def train_dataloader(self) -> DataLoader[Batch]:
        """In the training process: an item is a few megabytes from memory."""
        pinned = torch.cuda.is_available()
        return DataLoader(self.batches, batch_size=None, sampler=_From(self.start), pin_memory=pinned)


class _From(Sampler[int]):
    """start, start + 1, ...; it has no length, so that Lightning does not end an epoch by it."""

    def __init__(self, start: int) -> None:
        self._start = start

    def __iter__(self) -> Iterator[int]:
        return count(self._start)


def _derived(*parts: object) -> int:
    """A seed that depends on all parts, well mixed."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "little")
