"""The exponential moving average of the adapter, unbiased from the first step on."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """After n updates: sum d^(n - i) w_i / sum d^(n - i), i = 1..n; so the start weighs nothing.

    The form is Adam's bias correction (Kingma & Ba 2015, arXiv 1412.6980, section 3), kept as a running mean:
    a_n = a_(n-1) + (1 - d) / (1 - d^n) (w_n - a_(n-1)).

    Args:
        weights: what is averaged, by name.
        decay: d; the average looks back over about 1 / (1 - d) steps.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], decay: float) -> None:
        self.weights, self.decay, self.count = weights, decay, 0
        self.values = {name: weight.detach().clone() for name, weight in weights.items()}

    def update(self) -> None:
        """Take in the weights as they are now."""
        self.count += 1
        share = (1 - self.decay) / (1 - self.decay**self.count)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.values.values()), list(self.weights.values()), share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The average stands in the weights' place; afterwards they are back, bit for bit."""
        kept = [weight.detach().clone() for weight in self.weights.values()]
        _copy(self.values.values(), self.weights.values())
        try:
            yield
        finally:
            _copy(kept, self.weights.values())

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"count": self.count, "values": self.values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self.count = state["count"]
        _copy([state["values"][name] for name in self.values], self.values.values())


@torch.no_grad()
def _copy(sources: Iterable[Tensor], targets: Iterable[Tensor]) -> None:
    """In place: others may hold the tensors' addresses."""
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
