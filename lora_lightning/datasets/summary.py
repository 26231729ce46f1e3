"""A dataset at a glance: its statistics, and which picture has which caption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lora_lightning.datasets.store import Dataset, Picture


@dataclass(frozen=True)
class Statistics:
    """A dataset in figures; sides in pixels after EXIF rotation, 0 when it is empty.

    Attributes:
        captioned: pictures whose caption is not empty.
        authors: captions by who wrote them.
        smallest_side: over all widths and heights; `largest_side` and `mean_side` likewise.
        mean_megapixels: millions of pixels a picture.
        formats: pictures by file format, such as {"jpg": 12}.
        bytes: of all originals.
        mean_caption_words: of the captions there are.
    """

    pictures: int
    captioned: int
    authors: dict[str, int]
    smallest_side: int
    largest_side: int
    mean_side: float
    mean_megapixels: float
    formats: dict[str, int]
    bytes: int
    mean_caption_words: float


@dataclass(frozen=True)
class Match:
    """A picture and its caption, as a row of the table shown before training."""

    name: str
    width: int
    height: int
    caption: str
    author: str
    matched: bool


def match_table(dataset: Dataset) -> list[Match]:
    """Every picture with its caption or the lack of it, in natural order."""
    return [Match(p.name, p.width, p.height, p.caption, p.author, bool(p.caption)) for p in dataset.pictures()]


def summarize(pictures: Sequence[Picture], size_bytes: int) -> Statistics:
    """The statistics of these pictures."""
    sides = [side for picture in pictures for side in (picture.width, picture.height)]
    captioned = [picture for picture in pictures if picture.caption]
    return Statistics(
        pictures=len(pictures),
        captioned=len(captioned),
        authors=dict(Counter(picture.author for picture in captioned)),
        smallest_side=min(sides, default=0),
        largest_side=max(sides, default=0),
        mean_side=_mean(sides),
        mean_megapixels=_mean([picture.width * picture.height / 1e6 for picture in pictures]),
        formats=dict(Counter(picture.file.rpartition(".")[2] for picture in pictures)),
        bytes=size_bytes,
        mean_caption_words=_mean([len(picture.caption.split()) for picture in captioned]),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
