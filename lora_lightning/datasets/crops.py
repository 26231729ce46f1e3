"""The views of a picture at one training size: a few cuts of it, each also mirrored on request.

There are so many and no more, and they depend on the picture alone, so each can be cached and shared between runs.
"""

import hashlib
import random
from dataclasses import dataclass

from lora_lightning.datasets.buckets import Bucket, CropBox, crop_box


@dataclass(frozen=True)
class View:
    """What is cut out, and whether it is mirrored left to right then."""

    crop: CropBox
    flipped: bool = False


@dataclass(frozen=True)
class Augment:
    """Which views there are.

    Attributes:
        crops: number of different cuts, the plain one included.
        zoom: the further ones show the picture up to so many times larger.
        flip: each cut also mirrored.
        enlarge: whether a picture may be shown larger than it is.
    """

    crops: int = 1
    zoom: float = 1.25
    flip: bool = False
    enlarge: bool = False


def views(
    width: int, height: int, bucket: Bucket, augment: Augment, *, centre: tuple[float, float], key: str
) -> tuple[View, ...]:
    """The views of a picture, all different; the first is the plain cut around `centre`.

    Args:
        width: of the upright picture, pixels.
        height: likewise.
        bucket: the size of every view.
        augment: which there are.
        centre: of the plain cut, as shares of width and height.
        key: the hash of the picture's content, from which the further cuts are drawn.
    """
    plain = crop_box(width, height, bucket, centre)
    own_size = max(1.0, min(width / plain.resized_width, height / plain.resized_height))
    zoom = augment.zoom if augment.enlarge else min(augment.zoom, own_size)
    crops = [plain]
    for number in range(1, augment.crops):
        seed = hashlib.sha256(f"{key} {bucket} {number}".encode()).digest()
        draw = random.Random(int.from_bytes(seed[:7], "little"))
        crops.append(_drawn(width, height, bucket, 1 + (zoom - 1) * draw.random(), draw))
    turns = (False, True) if augment.flip else (False,)
    return tuple(View(crop, flipped) for crop in dict.fromkeys(crops) for flipped in turns)


def _drawn(width: int, height: int, bucket: Bucket, zoom: float, draw: random.Random) -> CropBox:
    """A cut at a place drawn evenly from all that lie inside."""
    middle = crop_box(width, height, bucket, zoom=zoom)
    x = bucket.width / 2 + draw.random() * (middle.resized_width - bucket.width)
    y = bucket.height / 2 + draw.random() * (middle.resized_height - bucket.height)
    return crop_box(width, height, bucket, (x / middle.resized_width, y / middle.resized_height), zoom)
