"""What the readers of exports share; each format's `read` tells what its program would make of the folder."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

_SUFFIXES = (".png", ".jpg")


@dataclass(frozen=True)
class Seen:
    """A picture as another program finds it: its file's name, its caption, and its size in pixels."""

    file: str
    caption: str
    width: int
    height: int


def seen(path: Path, caption: str) -> Seen:
    """A picture file with the caption that it would be trained on."""
    with Image.open(path) as image:
        return Seen(path.name, caption, *image.size)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)


def text_beside(picture: Path) -> str | None:
    """The whole text of the file that belongs to a picture, None when there is none."""
    path = picture.with_suffix(".txt")
    return path.read_bytes().decode("utf-8") if path.is_file() else None


def first_line(text: str | None, absent: str) -> str:
    """The first line that says something, as trainers read that take one line for one caption."""
    return next((line.strip() for line in (text or "").splitlines() if line.strip()), absent)
