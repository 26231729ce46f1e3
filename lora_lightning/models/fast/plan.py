"""How a training step is run, without torch: the planner and the dashboard speak of it too."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """What a block keeps between the forward and the backward pass; the rest is computed again."""

    EVERYTHING = "all that no cheap operation gives"
    ATTENTION = "its input and what attention gave"
    INPUT = "its input"
    STREAMED = "its input; its weights wait in the host's memory"


@dataclass(frozen=True)
class Plan:
    """How a training step is run.

    Attributes:
        compile: fuse what lies between the matrix products (torch.compile of the two kinds of block).
        dynamic: compile once for all numbers of tokens.
        keep_transposed: hold fp8 weights twice, as either product reads them.
        recompute: how many of the blocks keep their input and what attention gave.
        bare: how many keep only their input.
        streamed: how many keep only their input, and their frozen weights in the host's memory.
    """

    compile: bool = False
    dynamic: bool = False
    keep_transposed: bool = False
    recompute: int = 0
    bare: int = 0
    streamed: int = 0

    def levels(self, blocks: int) -> list[Level]:
        """Of each block, the first first; each level is spread evenly over the blocks that are left to it."""
        levels, left = [Level.EVERYTHING] * blocks, list(range(blocks))
        counts = {Level.STREAMED: self.streamed, Level.INPUT: self.bare, Level.ATTENTION: self.recompute}
        for level, count in counts.items():
            for index in (chosen := _spread(left, count)):
                levels[index] = level
            left = [index for index in left if index not in chosen]
        return levels


def _spread(indices: Sequence[int], count: int) -> set[int]:
    of = len(indices)
    return {index for i, index in enumerate(indices) if (i + 1) * count // of > i * count // of}
