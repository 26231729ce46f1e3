"""Captions that say nearly the same: they teach nothing that the first of them does not.

Shapes: K keys of all captions in a row.
"""

import re
from collections.abc import Sequence
from functools import lru_cache, reduce
from operator import xor

import numpy as np
import numpy.typing as npt

from lora_lightning.datasets.words import STOP_WORDS

FEWEST_WORDS = 8
"""With fewer words besides the stop words, one of them makes a difference: `a dog runs`, `a cat runs`."""


def groups(captions: Sequence[str]) -> list[list[int]]:
    """Places of captions with the same words; where one has eight or more, one word may be another or be missing.

    Stop words, order, repetition and punctuation do not count. Two sets of words that differ in one are equal
    after taking one word out of either or both: each caption is filed under its set, and under its set without each
    of its words, where a set is the XOR of its words' hashes; captions filed under one key belong together.
    """
    filed = [_keys(caption) for caption in captions]
    keys_K = np.concatenate([*filed, np.empty(0, np.int64)])
    owners_K = np.repeat(np.arange(len(filed)), np.array([len(keys) for keys in filed], np.int64))
    order_K = np.argsort(keys_K, kind="stable")
    keys_K, owners_K = keys_K[order_K], owners_K[order_K]
    same_K = np.flatnonzero(keys_K[1:] == keys_K[:-1])
    return _joined(owners_K[same_K].tolist(), owners_K[same_K + 1].tolist())


@lru_cache(2**15)
def _keys(caption: str) -> npt.NDArray[np.int64]:
    """What a caption is filed under; remembered, since a page asks again after each edit of another one."""
    words = [hash(word) for word in set(re.findall(r"\w+", caption.lower())) - STOP_WORDS]
    whole = reduce(xor, words, 0)
    without = [whole ^ word for word in words] if len(words) >= FEWEST_WORDS else []
    return np.array([whole, *without] if words else [], np.int64)


def _joined(left: Sequence[int], right: Sequence[int]) -> list[list[int]]:
    """The connected parts of a graph, by union-find; each sorted, the first member's part first."""
    parents = {place: place for place in (*left, *right)}

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    for a, b in zip(left, right, strict=True):
        parents[root(a)] = root(b)
    found: dict[int, list[int]] = {}
    for place in sorted(parents):
        found.setdefault(root(place), []).append(place)
    return list(found.values())
