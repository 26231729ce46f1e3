"""Aspect-ratio buckets: the sizes that pictures are trained at, and the exact crop that each one gets.

Method: "Aspect Ratio Bucketing" (NovelAI, 2022), with sides in multiples of 16 because FLUX packs 2 x 2 latents of
8 x 8 pixels into one token. Shared by triage and training, so what is shown is what is trained.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

STEP = 16
SIZES_REMEMBERED = 16_384


@dataclass(frozen=True, order=True)
class Bucket:
    """A training size in pixels, both sides multiples of 16."""

    width: int
    height: int

    @property
    def tokens(self) -> int:
        """The length of the sequence that FLUX reads for it, one token for 16 x 16 pixels."""
        return (self.width // STEP) * (self.height // STEP)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class CropBox:
    """Resize to `resized`, then cut out [left, right) x [top, bottom), which has the bucket's size exactly."""

    resized_width: int
    resized_height: int
    left: int
    top: int
    right: int
    bottom: int


def choose(width: int, height: int, resolutions: Sequence[int], *, enlarge: bool = False) -> list[Bucket]:
    """The buckets of a picture: one a resolution, areas about resolution squared, not enlarging unless told to.

    A picture too small for all of them gets one bucket, that of the next resolution below (in steps of 16) which it
    fills. Only a side below 16 pixels leaves no choice but to enlarge it to 16.

    Args:
        width: of the upright picture, pixels.
        height: likewise.
        resolutions: sides of the square with the wanted area, pixels.
        enlarge: give it a bucket at every resolution, also where it has fewer pixels than that.
    """
    return list(_chosen(width, height, tuple(sorted(set(resolutions))), enlarge))


@lru_cache(SIZES_REMEMBERED)
def _chosen(width: int, height: int, resolutions: tuple[int, ...], enlarge: bool) -> tuple[Bucket, ...]:
    """The same; remembered, because the Train page asks again for every picture at every click."""
    shortest = min(width, height)
    if shortest < STEP:
        width, height = width * STEP // shortest, height * STEP // shortest
    found = (_nearest(width, height, resolution) for resolution in resolutions)
    fitting = tuple(dict.fromkeys(bucket for bucket in found if enlarge or _fits(width, height, bucket)))
    if fitting:
        return fitting
    below = (_nearest(width, height, resolution) for resolution in range(resolutions[0] - STEP, 0, -STEP))
    return (next(bucket for bucket in below if _fits(width, height, bucket)),)


def beyond(width: int, height: int, resolutions: Sequence[int]) -> list[int]:
    """The resolutions that a picture has too few pixels for."""
    return [side for side in resolutions if not _fits(width, height, _nearest(width, height, side))]


def crop_box(
    width: int, height: int, bucket: Bucket, centre: tuple[float, float] = (0.5, 0.5), zoom: float = 1.0
) -> CropBox:
    """Scale the picture until it just covers the bucket, then cut that out around a point; whole numbers throughout.

    Args:
        width: of the upright picture, pixels.
        height: likewise.
        bucket: what is cut out.
        centre: of the cut as shares of width and height; it gives way at the picture's edges.
        zoom: times the size that just covers the bucket, at least 1.
    """
    if bucket.width * height >= bucket.height * width:
        resized_width = round(bucket.width * zoom)
        resized_height = (2 * height * resized_width + width) // (2 * width)
    else:
        resized_height = round(bucket.height * zoom)
        resized_width = (2 * width * resized_height + height) // (2 * height)
    left = _start(resized_width, bucket.width, centre[0])
    top = _start(resized_height, bucket.height, centre[1])
    return CropBox(resized_width, resized_height, left, top, left + bucket.width, top + bucket.height)


def tally(
    sizes: Iterable[tuple[int, int]], resolutions: Sequence[int], *, enlarge: bool = False, repeats: int = 1
) -> Counter[Bucket]:
    """How often each bucket comes in an epoch, for pictures of these widths and heights."""
    counts: Counter[Bucket] = Counter()
    for (width, height), pictures in Counter(sizes).items():
        for bucket in choose(width, height, resolutions, enlarge=enlarge):
            counts[bucket] += pictures * repeats
    return counts


def batches_per_epoch(counts: Iterable[int], batch_size: int) -> int:
    """Steps through all buckets once; the last batch of a bucket may be smaller, none holds two sizes.

    Args:
        counts: samples in each bucket.
        batch_size: samples in one batch, of all devices together.
    """
    return sum(-(-count // batch_size) for count in counts)


def _start(resized: int, kept: int, centre: float) -> int:
    return min(max(math.floor(centre * resized - kept / 2), 0), resized - kept)


def _fits(width: int, height: int, bucket: Bucket) -> bool:
    return bucket.width <= width and bucket.height <= height


@lru_cache(4 * SIZES_REMEMBERED)
def _nearest(width: int, height: int, resolution: int) -> Bucket:
    """The bucket around the ideal size that needs no enlargement if any does, and cuts off least."""
    aspect = width / height
    ideal_width, ideal_height = resolution * math.sqrt(aspect), resolution / math.sqrt(aspect)
    around = (
        {max(STEP, STEP * math.floor(side / STEP)), max(STEP, STEP * math.ceil(side / STEP))}
        for side in (ideal_width, ideal_height)
    )
    candidates = [Bucket(*sides) for sides in product(*around)]

    def cut_off(bucket: Bucket) -> float:
        return abs(math.log(bucket.width / bucket.height / aspect))

    return min(candidates, key=lambda bucket: (not _fits(width, height, bucket), cut_off(bucket), bucket))
