"""The learning rate as a function of the step alone, so that nothing of it needs saving."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from pydantic import Field, model_validator

from lora_lightning.settings import Settings

SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}
"""What remains of the learning rate when a share of the steps after the warm-up is done, by the recipe's name."""


class Stage(Settings):
    """More steps at another learning rate; as text `500 at 2e-4`."""

    steps: int = Field(ge=1, le=1_000_000)
    learning_rate: float = Field(gt=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        steps, at, rate = value.partition(" at ")
        if not at:
            raise ValueError(f"{value!r} is not STEPS at LEARNING RATE, such as 500 at 2e-4")
        return {"steps": steps.strip(), "learning_rate": rate.strip()}

    def __str__(self) -> str:
        return f"{self.steps} at {self.learning_rate:g}"


@dataclass(frozen=True)
class Stretch:
    """Steps that share one learning rate; it is reached after the warm-up."""

    steps: int
    learning_rate: float


@dataclass(frozen=True)
class Schedule:
    """Stretches one after another, each with its own warm-up and decay.

    Attributes:
        stretches: in order.
        shape: of the decay, from `SHAPES`.
        warmup: steps of a stretch over which the rate rises; below 1 a share of them.
    """

    stretches: tuple[Stretch, ...]
    shape: str = "constant"
    warmup: float = 0.0

    @property
    def ends(self) -> tuple[int, ...]:
        """The step after which each stretch is over."""
        return tuple(accumulate(stretch.steps for stretch in self.stretches))

    @property
    def steps(self) -> int:
        """All of them."""
        return self.ends[-1]

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0: lr min(1, (t + 1) / (w + 1)) shape((t - w) / (T - w))."""
        place = next(place for place, end in enumerate(self.ends) if step < end or end == self.steps)
        stretch = self.stretches[place]
        t = step - (self.ends[place] - stretch.steps)
        w = warmup_steps(self.warmup, stretch.steps)
        if t < w:
            return stretch.learning_rate * (t + 1) / (w + 1)
        return stretch.learning_rate * SHAPES[self.shape]((t - w) / max(1, stretch.steps - w))


def warmup_steps(warmup: float, steps: int) -> int:
    """Steps of warm-up: `warmup` itself, or that share of the steps when it is below 1."""
    return round(warmup * steps) if warmup < 1 else round(warmup)
