"""Pictures that lie beside a dataset's own, under the same name: its masks, or what was there before an edit.

DATASET/  images/  masks/beach.png  references/beach.png      for the picture that was imported as beach.jpg
"""

from collections.abc import Sequence
from pathlib import Path

from lora_lightning.datasets.images import open_rgb
from lora_lightning.datasets.names import PICTURE_SUFFIXES
from lora_lightning.datasets.store import Picture
from lora_lightning.errors import DatasetError

MASKS, REFERENCES = "masks", "references"
ASPECT_TOLERANCE = 0.02


def find(pictures: Sequence[Picture], folder: Path, name: str) -> dict[str, str]:
    """Picture's file -> path of what lies beside it, as seen from the dataset's folder; for those that have it.

    Args:
        pictures: of the dataset.
        folder: of the dataset.
        name: of the folder in it.

    Raises:
        DatasetError: one has another shape than its picture, so that a cut would show something else.
    """
    found = {}
    for picture, path in pairs(pictures, folder, name):
        _check_shape(picture, path, name)
        found[picture.file] = f"{name}/{path.name}"
    return found


def pairs(pictures: Sequence[Picture], folder: Path, name: str) -> list[tuple[Picture, Path]]:
    """The pictures that something lies beside, with it; not looked into."""
    files = {path.stem: path for path in sorted((folder / name).glob("*")) if path.suffix.lower() in PICTURE_SUFFIXES}
    stems = ((picture, Path(picture.name).stem) for picture in pictures)
    return [(picture, files[stem]) for picture, stem in stems if stem in files]


def _check_shape(picture: Picture, path: Path, name: str) -> None:
    width, height = open_rgb(path).size
    if abs(width * picture.height / (height * picture.width) - 1) > ASPECT_TOLERANCE:
        raise DatasetError(
            f"{name}/{path.name} is {width} x {height}, its picture {picture.name} {picture.width} x {picture.height}",
            "Make it as large as its picture, or of the same shape.",
        )
