"""Aspect-ratio buckets: the sizes that pictures are trained at, and the exact crop that each one gets.

Method: "Aspect Ratio Bucketing" (NovelAI, 2022), with sides in multiples of 16 because FLUX packs 2 x 2 latents of
8 x 8 pixels into one token. Shared by triage and training, so what is shown is what is trained.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

STEP = 16


@dataclass(frozen=True, order=True)
class Bucket:
    """A training size in pixels, both sides multiples of 16."""

    width: int
    height: int


@dataclass(frozen=True)
class CropBox:
    """Resize to `resized`, then cut out [left, right) x [top, bottom), which has the bucket's size exactly."""

    resized_width: int
    resized_height: int
    left: int
    top: int
    right: int
    bottom: int


def choose(width: int, height: int, resolutions: Sequence[int]) -> list[Bucket]:
    """The buckets of a picture: one a resolution, areas about resolution squared, never enlarging.

    A picture too small for all of them gets one bucket, that of the next resolution below (in steps of 16) which it
    fills. Only a side below 16 pixels leaves no choice but to enlarge it to 16.

    Args:
        width: of the upright picture, pixels.
        height: likewise.
        resolutions: sides of the square with the wanted area, pixels.
    """
    shortest = min(width, height)
    if shortest < STEP:
        width, height = width * STEP // shortest, height * STEP // shortest
    found = (_nearest(width, height, resolution) for resolution in sorted(set(resolutions)))
    fitting = list(dict.fromkeys(bucket for bucket in found if _fits(width, height, bucket)))
    if fitting:
        return fitting
    below = (_nearest(width, height, resolution) for resolution in range(min(resolutions) - STEP, 0, -STEP))
    return [next(bucket for bucket in below if _fits(width, height, bucket))]


def crop_box(width: int, height: int, bucket: Bucket) -> CropBox:
    """Scale the picture until it just covers the bucket, then cut out the middle; whole numbers throughout."""
    if bucket.width * height >= bucket.height * width:
        resized_width = bucket.width
        resized_height = (2 * height * bucket.width + width) // (2 * width)
    else:
        resized_width = (2 * width * bucket.height + height) // (2 * height)
        resized_height = bucket.height
    left, top = (resized_width - bucket.width) // 2, (resized_height - bucket.height) // 2
    return CropBox(resized_width, resized_height, left, top, left + bucket.width, top + bucket.height)


def _fits(width: int, height: int, bucket: Bucket) -> bool:
    return bucket.width <= width and bucket.height <= height


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
