"""Which pictures would hurt a training, why, and what to do: near duplicates, blur, size, shape and light.

Nothing is deleted: a finding proposes, a person decides, and `aside` sets aside what can be brought back at any time.
The same bytes twice never enter a dataset (the import refuses them), so every duplicate here is another file.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lora_lightning.datasets.buckets import choose
from lora_lightning.datasets.hashing import distance, groups
from lora_lightning.datasets.measures import Measure
from lora_lightning.datasets.store import HUMAN, Picture

BLURRED_BELOW = 10.0
"""Of `Measure.sharpness`."""
ENLARGED_FROM = 1.05
LONGEST_ASPECT = 2.0
DARK_BELOW = 0.32
BRIGHT_ABOVE = 0.95
"""Of the highlights and of the shadows. Source: cleanvision's thresholds for dark and light pictures."""


@dataclass(frozen=True)
class Finding:
    """Something that speaks against a picture.

    Attributes:
        picture: its number; `name` is the user's name for it.
        kind: "duplicate", "blurred", "small", "aspect", "dark" or "bright".
        reason: what is wrong, with the figure, for a person.
        value: that figure: bits, sharpness, factor, long over short side, or brightness.
        suggestion: what to do.
    """

    picture: int
    name: str
    kind: str
    reason: str
    value: float
    suggestion: str


@dataclass(frozen=True)
class Group:
    """Pictures that are nearly the same.

    Attributes:
        best: the one to keep: largest, then sharpest, then captioned (by a person, if possible).
        others: the rest.
        bits: in how many of 64 bits of the hash each of the others differs from the best.
        captioned: the member with the caption worth keeping, None when there is no caption.
    """

    best: Picture
    others: tuple[Picture, ...]
    bits: tuple[int, ...]
    captioned: Picture | None


def duplicates(pictures: Sequence[Picture], measures: Mapping[int, Measure]) -> list[Group]:
    """Groups of near duplicates, each with the member to keep."""
    hashes_N = np.array([measures[picture.id].dhash for picture in pictures], np.uint64)
    return [_group([pictures[place] for place in places], measures) for places in groups(hashes_N)]


def leaks(found: Sequence[Group], held_out: Collection[int]) -> list[Group]:
    """Groups with pictures on both sides of a held-out split, which would make the validation look too good."""
    return [group for group in found if len({p.id in held_out for p in (group.best, *group.others)}) == 2]


def findings(
    pictures: Sequence[Picture], measures: Mapping[int, Measure], resolutions: Sequence[int], groups: Sequence[Group]
) -> list[Finding]:
    """Everything that speaks against these pictures, kind by kind and the worst first.

    Args:
        pictures: to look at.
        measures: of each of them.
        resolutions: that will be trained at, pixels.
        groups: their near duplicates.
    """
    found = [_duplicate(each, bits, group) for group in groups
             for each, bits in zip(group.others, group.bits, strict=True)]  # fmt: skip
    sides = [finding for picture in pictures for finding in _of_size(picture, min(resolutions))]
    light = [finding for picture in pictures for finding in _of_light(picture, measures[picture.id])]
    ranks = {"duplicate": 1, "blurred": 1, "small": -1, "aspect": -1, "dark": 1, "bright": -1}
    kinds = list(ranks)
    return sorted(found + sides + light, key=lambda f: (kinds.index(f.kind), ranks[f.kind] * f.value))


def _group(members: Sequence[Picture], measures: Mapping[int, Measure]) -> Group:
    def worth(picture: Picture) -> tuple[object, ...]:
        return picture.width * picture.height, measures[picture.id].sharpness, _caption_worth(picture), -picture.id

    best, *others = sorted(members, key=worth, reverse=True)
    captioned = max((p for p in (best, *others) if p.caption), key=_caption_worth, default=None)
    own = measures[best.id].dhash
    return Group(best, tuple(others), tuple(distance(own, measures[p.id].dhash) for p in others), captioned)


def _caption_worth(picture: Picture) -> tuple[bool, int]:
    return picture.author == HUMAN and bool(picture.caption), len(picture.caption)


def _duplicate(picture: Picture, bits: int, group: Group) -> Finding:
    best = group.best
    suggestion = f"Set it aside and keep {best.name} ({best.width} x {best.height})."
    if picture is group.captioned:
        suggestion += f" Its caption is the better one: copy it to {best.name}."
    reason = f"nearly the same as {best.name}: {bits} of 64 bits differ"
    return Finding(picture.id, picture.name, "duplicate", reason, bits, suggestion)


def _of_size(picture: Picture, resolution: int) -> Iterator[Finding]:
    factor = resolution / (picture.width * picture.height) ** 0.5
    if factor >= ENLARGED_FROM:
        bucket = choose(picture.width, picture.height, [resolution])[0]
        yield Finding(
            picture.id, picture.name, "small", f"would be upscaled {factor:.1f}x for {resolution} pixels", factor,
            f"Find a larger copy; otherwise it is trained at {bucket.width} x {bucket.height}.",
        )  # fmt: skip
    aspect = max(picture.width, picture.height) / min(picture.width, picture.height)
    if aspect > LONGEST_ASPECT:
        yield Finding(
            picture.id, picture.name, "aspect", f"{aspect:.1f} times as long as wide", aspect,
            "Crop it to its subject; few pictures share such a bucket, and the subject is small in it.",
        )  # fmt: skip


def _of_light(picture: Picture, measure: Measure) -> Iterator[Finding]:
    def finding(kind: str, reason: str, value: float, suggestion: str) -> Finding:
        return Finding(picture.id, picture.name, kind, reason, value, suggestion)

    if measure.sharpness < BLURRED_BELOW:
        reason = f"blurred: sharpness {measure.sharpness:.1f}, below {BLURRED_BELOW:g}"
        yield finding("blurred", reason, measure.sharpness, "Set it aside, unless the blur is meant.")
    if measure.highlights < DARK_BELOW:
        reason = f"dark: 99 % of it is below {measure.highlights:.0%} brightness"
        yield finding("dark", reason, measure.highlights, "Set it aside or brighten it, unless the dark is meant.")
    if measure.shadows > BRIGHT_ABOVE:
        reason = f"bright: 95 % of it is above {measure.shadows:.0%} brightness"
        yield finding("bright", reason, measure.shadows, "Set it aside, unless the white is meant.")
