"""What is asked about each picture: prompts, seeds and how words are chosen."""

import hashlib
from dataclasses import dataclass, replace

from PIL import Image
from torch.utils.data import Dataset as TorchDataset

from lora_lightning.caption.base import Request, Sampling
from lora_lightning.datasets.images import open_rgb
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.errors import DatasetError

TAGS = "{tags}"
REROLL_TEMPERATURE = 0.4
"""For captions that loop although nothing is drawn: the same tokens would come again."""


@dataclass(frozen=True)
class Plan:
    """How pictures are described.

    Attributes:
        prompts: all are asked and the answers joined, or, to `draw`, one of them by the picture's seed.
        seed: of the recipe.
        sampling: how words are chosen.
        rerolls: how often a caption that repeats itself is tried again.
        prefix: stands before each caption; `suffix` behind it.
    """

    prompts: tuple[str, ...]
    sampling: Sampling
    seed: int = 0
    draw: bool = False
    rerolls: int = 0
    prefix: str = ""
    suffix: str = ""

    def requests(self, picture: Picture, image: Image.Image, tags: str = "") -> list[Request]:
        """What is asked about a picture."""
        prompts = self.prompts
        if self.draw:
            prompts = (prompts[picture_seed(self.seed, picture.sha256, "draw") % len(prompts)],)
        return [
            Request(image, prompt.replace(TAGS, tags), picture_seed(self.seed, picture.sha256, place), self.sampling)
            for place, prompt in enumerate(prompts)
        ]

    def again(self, request: Request, attempt: int) -> Request:
        """The same question with another seed, for the attempt after the first."""
        sampling = replace(request.sampling, temperature=request.sampling.temperature or REROLL_TEMPERATURE)
        return replace(request, seed=_number(f"{request.seed} {attempt}"), sampling=sampling)

    def caption(self, texts: list[str]) -> str:
        """The caption that the answers make."""
        return f"{self.prefix}{' '.join(texts)}{self.suffix}"


def picture_seed(seed: int, sha256: str, part: int | str = 0) -> int:
    """The seed of one question about a picture: of the recipe's seed, the picture's bytes and the question's place.

    So neither order nor batch changes a caption.
    """
    return _number(f"{seed} {sha256}" + (f" {part}" if part else ""))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


@dataclass(frozen=True)
class Item:
    """A picture in 8-bit RGB, or why it cannot be read."""

    picture: Picture
    image: Image.Image | None = None
    reason: str = ""


class Pictures(TorchDataset[Item]):
    """Decodes the pictures to describe, so that a loader can do it beside the model."""

    def __init__(self, dataset: Dataset, pictures: list[Picture]) -> None:
        self._dataset, self._pictures = dataset, pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Item:
        picture = self._pictures[index]
        try:
            return Item(picture, open_rgb(self._dataset.path(picture)))
        except DatasetError as error:
            return Item(picture, reason=error.message)
