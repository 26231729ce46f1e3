"""Exports that are read again before they count: the way the other program's loader reads them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_lightning import plugins
from lora_lightning.datasets.formats._pictures import numbered
from lora_lightning.datasets.formats._reading import Seen
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.errors import JobError

FOLDER = "datasets/formats"


@dataclass(frozen=True)
class Export:
    """A dataset written for another program, and proven.

    Attributes:
        files: everything that was written.
        pictures: how many it holds.
        captions: how many of them have a caption.
        notes: what the other program does that a person should know.
    """

    files: list[Path]
    pictures: int
    captions: int
    notes: list[str]


def titles() -> dict[str, str]:
    """The formats there are, each with the program that it is for."""
    return {name: plugins.load(FOLDER, name).TITLE for name in plugins.names(FOLDER)}


def export(dataset: Dataset, format: str, output: Path) -> Export:
    """Write a dataset in a format, then read it as the other program does and compare.

    Args:
        dataset: to export.
        format: a file of `formats/`, by name.
        output: a new or empty folder.

    Raises:
        InputError: there is no such format, or the folder is taken.
        DatasetError: the dataset is empty, a picture is damaged, or the program would change a caption.
        JobError: the other program would not see what the dataset holds.
    """
    plugin = plugins.load(FOLDER, format)
    pictures = dataset.pictures()
    files: list[Path] = plugin.export(dataset, output)
    stems: Callable[[list[Picture]], list[str]] = getattr(plugin, "stems", numbered)
    check(dict(zip(stems(pictures), pictures, strict=True)), plugin.read(output))
    bare = sum(not picture.caption for picture in pictures)
    notes = [plugin.NOTE] if plugin.NOTE else []
    if bare:
        notes.append(f"{bare:,} of {len(pictures):,} pictures have no caption: {plugin.WITHOUT_CAPTION}")
    return Export(files, len(pictures), len(pictures) - bare, notes)


def check(expected: Mapping[str, Picture], found: Iterable[Seen]) -> None:
    """Compare what a program would train on with what the dataset holds.

    Args:
        expected: the pictures by the stem of their files.
        found: what the program makes of each file.

    Raises:
        JobError: a picture or caption is missing, doubled or different; the message names the first.
    """
    left = dict(expected)
    for each in found:
        picture = left.pop(Path(each.file).stem, None)
        if picture is None:
            raise _unlike(each.file, "it is there twice, or belongs to no picture")
        if each.caption != picture.caption:
            raise _unlike(each.file, f"its caption is {each.caption[:80]!r} instead of {picture.caption[:80]!r}")
        if (each.width, each.height) != (picture.width, picture.height):
            raise _unlike(each.file, f"it has {each.width} x {each.height} pixels")
    if left:
        raise _unlike(next(iter(left)), "it is not found")


def _unlike(file: str, why: str) -> JobError:
    return JobError(f"the export was written, but {file} reads back differently: {why}", "Please report this.")
