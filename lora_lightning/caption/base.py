"""What captioning asks of a captioner; a new kind is one file in captioners/ with `build(folder, device)`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image


@dataclass(frozen=True)
class Request:
    """One picture to describe: 8-bit RGB, what to ask, and the seed of whatever is drawn for it."""

    image: Image.Image
    prompt: str
    seed: int = 0


@dataclass(frozen=True)
class Sampling:
    """How words are chosen.

    Attributes:
        temperature: 0 always takes the likeliest token.
        top_p: draw from the smallest set of tokens whose probabilities reach this sum.
        max_tokens: longest caption, in tokens.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 300


class Captioner(Protocol):
    """Describes pictures. Each text depends on its own request alone, not on what else is in the batch."""

    def describe(self, requests: Sequence[Request], sampling: Sampling) -> list[str]:
        """One text a request, in their order."""
