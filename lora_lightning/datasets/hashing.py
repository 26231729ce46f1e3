"""Perceptual hashes: pictures that look alike get hashes that differ in few bits.

Shapes: N hashes, H W rows and columns of pixels.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

NEAR_BITS = 8
"""Copies that were resized or recompressed differ in at most 7 of 64 bits, different photographs in 16 and more."""


def difference_hash(image: Image.Image) -> int:
    """The 64-bit dHash: is each of 8 x 8 cells darker than its right neighbour? Insensitive to size and exposure.

    Source: N. Krawetz, "Kind of Like That" (2013).

    Args:
        image: 8-bit gray.
    """
    cells_HW = np.asarray(image.resize((9, 8), Image.Resampling.LANCZOS))
    return int.from_bytes(np.packbits(cells_HW[:, :-1] < cells_HW[:, 1:]).tobytes(), "big")


def distance(a: int, b: int) -> int:
    """In how many bits two hashes differ."""
    return (a ^ b).bit_count()


def groups(hashes_N: npt.NDArray[np.uint64], bits: int = NEAR_BITS) -> list[list[int]]:
    """The connected parts, of two and more, of the graph that joins hashes which differ in at most `bits`.

    Each step compares one hash with all that are not in a group yet: at most N^2 / 2 comparisons, 64 bits at a time.

    Returns:
        Places in `hashes_N`, in rising order.
    """
    left = np.arange(len(hashes_N))
    found = []
    while len(left):
        group, frontier, left = [left[:1]], [int(left[0])], left[1:]
        while frontier and len(left):
            near = np.bitwise_count(hashes_N[left] ^ hashes_N[frontier.pop()]) <= bits
            if near.any():
                group.append(left[near])
                frontier += left[near].tolist()
                left = left[~near]
        if len(group) > 1:
            found.append(np.sort(np.concatenate(group)).tolist())
    return found
