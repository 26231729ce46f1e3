"""Variations of a dataset's pictures: what each is drawn from, and where it waits for a person.

Method: SDEdit (Meng et al. 2022, arXiv 2108.01073) on the straight path of rectified flow, as in diffusers'
FluxImg2ImgPipeline: x_sigma = (1 - sigma) x_0 + sigma epsilon of the picture, then the steps that are left from there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from lora_lightning.datasets import variations
from lora_lightning.datasets.buckets import choose
from lora_lightning.datasets.choosing import named
from lora_lightning.datasets.store import Dataset
from lora_lightning.datasets.tokens import meters
from lora_lightning.errors import InputError
from lora_lightning.models.config import resolve_base
from lora_lightning.models.sampling import Shot
from lora_lightning.workspace import Workspace

Keep = Callable[[Path], None]
CAPTION = "{caption}"
"""What a prompt has in the place of the picture's own caption."""


@dataclass(frozen=True)
class Begin:
    """What a picture is drawn from besides its prompt.

    Attributes:
        shot: without its prompt.
        caption: of its reference.
        mark: begins the names of the files drawn from it, which a run that goes on finds again in a changed dataset.
    """

    shot: Shot
    caption: str = ""
    mark: str = ""

    def with_prompt(self, text: str, place: int) -> Shot:
        """The shot for a prompt; `place` counts those of the same prompt."""
        said = text.replace(CAPTION, self.caption) if self.shot.strength else text
        return replace(self.shot, prompt=said, seed=self.shot.seed + place)


def begins(workspace: Workspace, name: str, chosen: str, base: str, trigger: str, usual: Shot) -> list[Begin]:
    """One for each of a dataset's pictures that are chosen; a picture without a caption has the trigger for one.

    Args:
        workspace: of the dataset.
        name: of the dataset.
        chosen: numbers or a filter; empty for all.
        base: the base model, whose tokens a filter may count.
        trigger: the trigger word, or empty.
        usual: with the area, strength and all that the shots have in common.

    Raises:
        DatasetError: there is no such dataset, or no picture of a number.
        InputError: the filter has a mistake, or lets no picture through.
    """
    dataset = Dataset.open(workspace.dataset(name))
    found = named(dataset.pictures(), chosen, meters(resolve_base(base)), trigger, "generate.vary_pictures")
    if not found:
        raise InputError(f"no picture of {name!r} is chosen", "Give other numbers, another filter, or none for all.")
    side = round((usual.width * usual.height) ** 0.5)
    made = []
    for picture in found:
        (bucket,) = choose(picture.width, picture.height, [side], enlarge=True)
        path = str(dataset.path(picture))
        shot = replace(usual, width=bucket.width, height=bucket.height, reference=path)
        made.append(Begin(shot, picture.caption or trigger, f"{picture.id:06d}-"))
    return made


def keeper(workspace: Workspace, name: str) -> Keep:
    """What lays a drawn picture aside in a dataset; without a name it does nothing."""
    if not name:
        return lambda path: None
    dataset = Dataset.open(workspace.dataset(name))
    origins = {picture.file: picture for picture in dataset.pictures(include_aside=True)}

    def keep(path: Path) -> None:
        with Image.open(path) as drawn:
            drawn.load()  # the text chunks of a PNG may stand behind its pixels
            facts = {str(name): str(value) for name, value in drawn.info.items()}
        variations.lay_aside(dataset, origins[facts["reference"]], path, facts["prompt"], facts)

    return keep
