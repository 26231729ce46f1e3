"""What exports share: pictures that every trainer reads alike, captions as text files, and a folder made whole.

Pictures are numbered (`0001.png`). Names of the user's own would meet rules that differ from trainer to trainer:
sd-scripts cuts names at underscores to find a caption, OneTrainer leaves `-masklabel` out, and the `datasets` library
takes `test` in a name for a split; none of them says so.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from PIL import Image

from lora_lightning.datasets.images import read
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.errors import DatasetError, InputError

_COPIED = {"JPEG": ".jpg", "PNG": ".png"}
_EXTRAS = ("exif", "xmp", "transparency")


@dataclass(frozen=True)
class Row:
    """A picture in an export.

    Attributes:
        file: its name, such as `0001.png`.
        caption: one line, empty when there is none.
    """

    file: str
    caption: str


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `output` when the block ends well and vanishes when it does not.

    Raises:
        InputError: there is something at `output` that is not an empty folder.
    """
    try:
        if output.is_symlink() or (output.exists() and any(output.iterdir())):
            raise InputError(f"{output} is not an empty folder", "Choose an empty or a new folder for the export.")
        output.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{output} cannot be a folder: a file is in the way", "Choose another folder.") from None
    folder = Path(mkdtemp(dir=output.parent, prefix=f".{output.name}.", suffix=".tmp"))
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp makes it private
        folder.rename(output)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def files(output: Path) -> list[Path]:
    """Every file of a finished export, sorted."""
    return sorted(path for path in output.rglob("*") if path.is_file())


def write_pictures(dataset: Dataset, folder: Path) -> list[Row]:
    """Write every picture of a dataset in its order, numbered from 0001.

    Raises:
        DatasetError: the dataset is empty, or an original is gone or damaged.
    """
    pictures = dataset.pictures()
    if not pictures:
        raise DatasetError(f"dataset {dataset.name!r} has no pictures", f"Run `import {dataset.name} PICTURES` first.")
    folder.mkdir(parents=True, exist_ok=True)
    return [
        Row(write_picture(dataset.path(picture), folder, stem), picture.caption)
        for stem, picture in zip(numbered(pictures), pictures, strict=True)
    ]


def numbered(pictures: Sequence[Picture]) -> list[str]:
    """The stems of numbered files: `0001`, `0002`, ..."""
    digits = max(4, len(str(len(pictures))))
    return [f"{number:0{digits}}" for number in range(1, len(pictures) + 1)]


def write_picture(original: Path, folder: Path, stem: str) -> str:
    """Write a picture as 8-bit sRGB, upright and opaque, in JPEG or PNG without EXIF; returns the file's name.

    An original that is so already is copied byte by byte; any other becomes a PNG, which loses nothing.

    Raises:
        DatasetError: the original is gone or damaged.
    """
    decoded = read(original)
    if not decoded.changes and decoded.format in _COPIED and _is_bare(original):
        return shutil.copyfile(original, folder / f"{stem}{_COPIED[decoded.format]}").name
    decoded.image.info.clear()  # Pillow would write the original's profile beside pixels that are sRGB now
    decoded.image.save(folder / f"{stem}.png")
    return f"{stem}.png"


def write_captions(rows: Sequence[Row], folder: Path, *, empty_files: bool = False) -> None:
    """Write `0001.txt` beside `0001.png`: UTF-8 without a mark, and no line end, which ai-toolkit would train on.

    Args:
        rows: the pictures.
        folder: where they lie.
        empty_files: whether a picture without a caption gets an empty file (sd-scripts crashes on one) or none.
    """
    for row in rows:
        if row.caption or empty_files:
            (folder / row.file).with_suffix(".txt").write_bytes(row.caption.encode())


def _is_bare(path: Path) -> bool:
    """Whether a file holds RGB pixels, nothing that a reader may apply to them, and no word of where they are from."""
    with Image.open(path) as image:
        return image.mode == "RGB" and image.format in _COPIED and not any(extra in image.info for extra in _EXTRAS)
