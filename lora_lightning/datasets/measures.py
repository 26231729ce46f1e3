"""What triage measures of each picture: its perceptual hash, sharpness and brightness; kept in the dataset's file.

Shapes: H W rows and columns of pixels.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lora_lightning.datasets import schema
from lora_lightning.datasets.hashing import difference_hash
from lora_lightning.datasets.images import read
from lora_lightning.datasets.store import Dataset, Picture

SIDE = 384
MAX_WORKERS = 4
STORED_AT_ONCE = 64
_SIGN = 1 << 63


@dataclass(frozen=True)
class Measure:
    """Figures of one picture, taken from its gray version with a longer side of at most 384 pixels.

    Attributes:
        dhash: 64 bits.
        sharpness: 1000 times the variance of the Laplacian over the deviation of the brightness. Sharp photographs
            have 11 and more; blurred by 0.3 % of their side, most have less than 10. (The plain variance takes a soft
            contrast for blur: it puts a sharp moon below a blurred lawn.)
        shadows: 5th percentile of the brightness, 0 to 1.
        highlights: 99th percentile likewise.
    """

    dhash: int
    sharpness: float
    shadows: float
    highlights: float


def measure(path: Path) -> Measure:
    """Decode a picture and measure it.

    Raises:
        DatasetError: it cannot be read; the message names it.
    """
    image = read(path, at_least=SIDE).image
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    gray = image.convert("L")
    y_HW = np.asarray(gray, np.float64) / 255
    shadows, highlights = np.percentile(y_HW, (5, 99))
    return Measure(difference_hash(gray), _sharpness(y_HW), float(shadows), float(highlights))


def measure_all(
    dataset: Dataset, pictures: Sequence[Picture], advance: Callable[[int], object] = lambda done: None
) -> dict[int, Measure]:
    """Measures by picture number; those that are not stored yet are taken, a few at a time, and stored as they come.

    Args:
        dataset: of the pictures.
        pictures: to measure.
        advance: told how many are measured; what it raises stops the work, and what is stored stays.
    """
    found = stored(dataset)
    todo = [picture for picture in pictures if picture.id not in found]
    done = len(pictures) - len(todo)
    with ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1), "measure") as pool:
        for start in range(0, len(todo), STORED_AT_ONCE):
            part = todo[start : start + STORED_AT_ONCE]
            fresh = dict(zip([p.id for p in part], pool.map(lambda p: measure(dataset.path(p)), part), strict=True))
            _store(dataset, fresh)
            found |= fresh
            advance(done + start + len(part))
    return {picture.id: found[picture.id] for picture in pictures}


def stored(dataset: Dataset) -> dict[int, Measure]:
    """The measures that were taken so far, by picture number."""
    with schema.connection(dataset.database) as db:
        rows = db.execute("SELECT picture, dhash, sharpness, shadows, highlights FROM measures")
        return {picture: Measure(dhash % (2 * _SIGN), *figures) for picture, dhash, *figures in rows}


def _sharpness(y_HW: npt.NDArray[np.float64]) -> float:
    if min(y_HW.shape) < 3 or float(y_HW.std()) == 0:
        return 0.0
    neighbours_HW = y_HW[1:-1, :-2] + y_HW[1:-1, 2:] + y_HW[:-2, 1:-1] + y_HW[2:, 1:-1]
    return float(1000 * (neighbours_HW - 4 * y_HW[1:-1, 1:-1]).var() / y_HW.std())


def _store(dataset: Dataset, fresh: dict[int, Measure]) -> None:
    """Another process may have measured the same picture meanwhile, with the same outcome."""
    rows = [
        (picture, m.dhash - 2 * _SIGN if m.dhash >= _SIGN else m.dhash, m.sharpness, m.shadows, m.highlights)
        for picture, m in fresh.items()
    ]
    with schema.transaction(dataset.database) as db:
        db.executemany("INSERT OR REPLACE INTO measures VALUES (?, ?, ?, ?, ?)", rows)
