"""The seed's three files: NAME_captions.txt, NAME_captions.json and NAME_processed_images.zip (0001.png, ...).

The text has one `0001.png: caption` a line, the JSON is `{"captions": {"0001.png": "..."}}`; both leave out pictures
without a caption. The ZIP holds every picture as it is trained on: upright 8-bit RGB. Each entry's comment says what it
was made from, so that the next export encodes only what is new: of 10,000 pictures that is minutes.
"""

import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from lora_lightning import __version__
from lora_lightning.datasets.formats._pictures import numbered
from lora_lightning.datasets.formats._reading import Seen
from lora_lightning.datasets.images import background_of, open_rgb
from lora_lightning.datasets.sources import EXPORTED_ZIP
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.runs.files import write_atomic, write_json, write_text

TITLE = "Three files: captions as text and as JSON, pictures in a ZIP"
NOTE = ""
WITHOUT_CAPTION = "the two captions files leave them out"
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # equal datasets give equal ZIPs


def export(dataset: Dataset, output: Path, earlier: Path | None = None) -> list[Path]:
    """Write the three files into the folder `output`, replacing older ones; returns their paths.

    Args:
        dataset: to export.
        output: folder.
        earlier: a ZIP of an export before, to take unchanged pictures from; without one, the ZIP that is replaced.
    """
    pictures = dataset.pictures()
    named = {f"{stem}.png": picture for stem, picture in zip(numbered(pictures), pictures, strict=True)}
    captions = {name: picture.caption for name, picture in named.items() if picture.caption}
    lines = "".join(f"{name}: {caption}\n" for name, caption in captions.items())
    images = output / f"{dataset.name}{EXPORTED_ZIP}"
    with _opened(earlier or images) as old:
        if old is None or [(info.filename, info.comment) for info in old.infolist()] != _contents(named):
            write_atomic(images, lambda file: _write_zip(file, dataset, named, old))
        elif not images.is_file() or not images.samefile(earlier or images):
            _link(earlier or images, images)
    return [
        write_text(output / f"{dataset.name}_captions.txt", lines),
        write_json(output / f"{dataset.name}_captions.json", {"captions": captions}),
        images,
    ]


def read(output: Path) -> list[Seen]:
    """The dataset as the original workflow's trainer loads it: pictures from the ZIP, captions by their names."""
    archive = max(output.glob(f"*{EXPORTED_ZIP}"), key=lambda path: path.stat().st_mtime_ns)
    name = archive.name.removesuffix(EXPORTED_ZIP)
    captions = json.loads((output / f"{name}_captions.json").read_text("utf-8"))["captions"]
    found = []
    with zipfile.ZipFile(archive) as file:
        for member in file.namelist():
            with file.open(member) as data, Image.open(data) as image:
                found.append(Seen(member, captions.get(member, ""), *image.size))
    return found


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile | None]:
    """An earlier ZIP, if there is one that can be read."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile):
        yield None
        return
    with archive:
        yield archive


def _contents(named: Mapping[str, Picture]) -> list[tuple[str, bytes]]:
    """The names and comments of a ZIP of these pictures."""
    return [(name, _mark(picture)) for name, picture in named.items()]


def _mark(picture: Picture) -> bytes:
    """What decides a picture's pixels: its bytes, the colour behind them, and the program that reads them."""
    return f"{picture.sha256} {background_of(picture.file)} {__version__}".encode()


def _write_zip(file: BinaryIO, dataset: Dataset, named: Mapping[str, Picture], old: zipfile.ZipFile | None) -> None:
    known = {info.comment: info for info in old.infolist()} if old else {}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, picture in named.items():
            entry = zipfile.ZipInfo(name, _FIXED_TIME)
            entry.comment = _mark(picture)
            kept = _kept(old, known[entry.comment]) if old and entry.comment in known else b""
            archive.writestr(entry, kept or _png(dataset.path(picture)))


def _kept(old: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """An entry as it is, or nothing where it is damaged."""
    try:
        return old.read(info)
    except zipfile.BadZipFile:
        return b""


def _png(path: Path) -> bytes:
    png = io.BytesIO()
    open_rgb(path).save(png, "PNG")
    return png.getvalue()


def _link(earlier: Path, images: Path) -> None:
    """The same file once more, without its bytes: neither is ever written into, only replaced."""
    images.parent.mkdir(parents=True, exist_ok=True)
    temporary = images.with_name(f".{images.name}.link")
    temporary.unlink(missing_ok=True)
    try:
        os.link(earlier, temporary)
        os.replace(temporary, images)
    except OSError:  # another disk, or one without links
        write_atomic(images, lambda file: file.write(earlier.read_bytes()))
