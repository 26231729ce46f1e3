"""Captioning as a Lightning predict loop that commits every caption as it lands."""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch.utils.data import Dataset as TorchDataset

from lora_lightning.caption.base import Captioner, Request, Sampling
from lora_lightning.datasets.images import open_rgb
from lora_lightning.datasets.names import one_line
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.errors import CaptionConflict, DatasetError, OutOfMemory

log = logging.getLogger("lora_lightning")


@dataclass(frozen=True)
class Item:
    """A picture with what to ask about it, or why it cannot be read."""

    picture: Picture
    request: Request | None = None
    reason: str = ""


@dataclass(frozen=True)
class Result:
    """A picture with its caption, or why it has none."""

    picture: Picture
    text: str = ""
    reason: str = ""


class Pictures(TorchDataset[Item]):
    """Decodes the pictures to describe, so that a loader can do it beside the model."""

    def __init__(self, dataset: Dataset, pictures: Sequence[Picture], prompt: str, seed: int) -> None:
        self._dataset, self._pictures, self._prompt, self._seed = dataset, pictures, prompt, seed

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Item:
        picture = self._pictures[index]
        try:
            image = open_rgb(self._dataset.path(picture))
        except DatasetError as error:
            return Item(picture, reason=error.message)
        return Item(picture, Request(image, self._prompt, picture_seed(self._seed, picture.sha256)))


def picture_seed(seed: int, sha256: str) -> int:
    """The seed of one picture: of the recipe's seed and its bytes, so neither order nor batch changes a caption."""
    return int.from_bytes(hashlib.sha256(f"{seed} {sha256}".encode()).digest()[:7])


class CaptionModule(LightningModule):
    """Describes batches of pictures; a batch that does not fit into memory is halved, and so are those after it.

    Args:
        load: opens the captioner on the device of this process.
        sampling: how words are chosen.
    """

    def __init__(self, load: Callable[[torch.device], Captioner], sampling: Sampling) -> None:
        super().__init__()
        self._load, self._sampling = load, sampling
        self._most: int | None = None

    def setup(self, stage: str) -> None:
        """Load where Lightning has put this process."""
        self._captioner = self._load(self.trainer.strategy.root_device)

    def transfer_batch_to_device(self, batch: list[Item], device: torch.device, dataloader_idx: int) -> list[Item]:
        """Pictures stay where they are; the captioner moves what it makes of them."""
        return batch

    def predict_step(self, batch: list[Item], batch_idx: int) -> list[Result]:
        """One result an item, in their order.

        Raises:
            OutOfMemory: not even one picture fits.
        """
        requests = [item.request for item in batch if item.request]
        texts = iter(self._described(requests))
        return [_result(item, next(texts)) if item.request else Result(item.picture, "", item.reason) for item in batch]

    def _described(self, requests: Sequence[Request]) -> list[str]:
        size = min(self._most or len(requests), len(requests))
        texts: list[str] = []
        while len(texts) < len(requests):
            part = requests[len(texts) : len(texts) + size]
            try:
                texts += self._captioner.describe(part, self._sampling)
            except torch.OutOfMemoryError as error:
                size = self._halved(len(part), error)
        return texts

    def _halved(self, size: int, error: torch.OutOfMemoryError) -> int:
        if size == 1:
            raise OutOfMemory(
                "the captioner does not fit into memory with one picture",
                "Lower caption.max_tokens, stop what else uses the GPU, or use a smaller captioner.",
            ) from error
        self._most = size // 2
        log.warning("out of memory with %d pictures at once; going on with %d", size, self._most)
        torch.cuda.empty_cache()
        return self._most


def _result(item: Item, text: str) -> Result:
    line = one_line(text)
    return Result(item.picture, line, "" if line else "the captioner said nothing about it")


@dataclass
class Tally:
    """What became of the pictures."""

    captioned: int = 0
    seconds: float = 0.0
    failed: list[dict[str, str]] = field(default_factory=list)

    def fail(self, picture: Picture, reason: str) -> None:
        """Count a picture that has no caption, and why."""
        log.warning("%s: %s", picture.name, reason)
        self.failed.append({"file": picture.name, "reason": reason})


class CaptionWriter(BasePredictionWriter):
    """Commits each caption to the dataset at once; one that a person wrote meanwhile stays.

    Args:
        dataset: that the pictures come from.
        author: the captioner's name.
        details: stored with each caption: what it takes to write it again.
    """

    def __init__(self, dataset: Dataset, author: str, details: Mapping[str, object]) -> None:
        super().__init__(write_interval="batch")
        self.tally = Tally()
        self._dataset, self._author, self._details = dataset, author, details

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Store the results of a batch."""
        for result in prediction:
            self._store(result)
        self.tally.seconds = time.monotonic() - self._started

    def _store(self, result: Result) -> None:
        picture = result.picture
        if result.reason:
            self.tally.fail(picture, result.reason)
            return
        try:
            self._dataset.write_caption(
                picture.id,
                result.text,
                author=self._author,
                details=self._details,
                expected_version=picture.version,
            )
        except CaptionConflict:
            log.info("%s: its caption was changed meanwhile and stays", picture.name)
        except DatasetError as error:
            self.tally.fail(picture, error.message)
        else:
            self.tally.captioned += 1
