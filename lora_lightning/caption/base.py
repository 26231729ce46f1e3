"""What captioning asks of a captioner; a new kind is one file in captioners/.

Such a file says which models it opens (`MODEL_TYPES`, from config.json) and has `build(folder, device, quantize)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from PIL import Image

Quantize = Literal["none", "int8", "nf4"]
"""How the weights of the language model are stored; `none` is their own precision."""


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


@dataclass(frozen=True)
class Request:
    """One picture to describe: 8-bit RGB, what to ask, and how words are chosen, with the seed of what is drawn."""

    image: Image.Image
    prompt: str
    seed: int = 0
    sampling: Sampling = Sampling()


End = Literal["done", "cut", "looped"]
"""Why a text ended: the captioner was done, at the token limit, or because it repeated itself."""


@dataclass(frozen=True)
class Answer:
    """What a captioner said, or why it says nothing about this picture."""

    text: str
    end: End = "done"
    refusal: str = ""


class Captioner(Protocol):
    """Describes pictures by the batch. Each answer depends on its own request alone, not on the rest of the batch."""

    def describe(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer a request, in their order; all requests have the same sampling."""


@dataclass(frozen=True)
class Told:
    """The answer to the request that was put in under a key."""

    key: int
    answer: Answer


class Stream(Protocol):
    """Takes requests and gives answers in the order in which they land."""

    @property
    def free(self) -> int:
        """How many more requests it takes now."""

    @property
    def keys(self) -> list[int]:
        """The requests that it has not answered."""

    def put(self, key: int, request: Request) -> None:
        """Take a request."""

    def step(self) -> list[Told]:
        """Work until something is answered.

        Raises:
            OutOfMemoryError: of torch; the requests in it have to be put into a smaller stream.
        """

    def close(self) -> None:
        """Let go of what it holds."""


@runtime_checkable
class Streaming(Protocol):
    """A captioner that can take a new picture as soon as one of a batch is done."""

    def stream(self, size: int) -> Stream:
        """A stream that works at `size` pictures at once."""
