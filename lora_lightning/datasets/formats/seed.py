"""The seed's three files: NAME_captions.txt, NAME_captions.json and NAME_processed_images.zip (0001.png, ...).

The text has one `0001.png: caption` a line, the JSON is `{"captions": {"0001.png": "..."}}`; both leave out pictures
without a caption. The ZIP holds every picture as it is trained on: upright 8-bit RGB.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from lora_lightning.datasets.formats._pictures import numbered
from lora_lightning.datasets.formats._reading import Seen
from lora_lightning.datasets.images import open_rgb
from lora_lightning.datasets.sources import EXPORTED_ZIP
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.runs.files import write_atomic, write_json, write_text

TITLE = "Three files: captions as text and as JSON, pictures in a ZIP"
NOTE = ""
WITHOUT_CAPTION = "the two captions files leave them out"
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # equal datasets give equal ZIPs


def export(dataset: Dataset, output: Path) -> list[Path]:
    """Write the three files into the folder `output`, replacing older ones; returns their paths."""
    pictures = dataset.pictures()
    named = {f"{stem}.png": picture for stem, picture in zip(numbered(pictures), pictures, strict=True)}
    captions = {name: picture.caption for name, picture in named.items() if picture.caption}
    lines = "".join(f"{name}: {caption}\n" for name, caption in captions.items())
    images = output / f"{dataset.name}{EXPORTED_ZIP}"
    write_atomic(images, lambda file: _write_zip(file, dataset, named))
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


def _write_zip(file: BinaryIO, dataset: Dataset, named: dict[str, Picture]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, picture in named.items():
            png = io.BytesIO()
            open_rgb(dataset.path(picture)).save(png, "PNG")
            archive.writestr(zipfile.ZipInfo(name, _FIXED_TIME), png.getvalue())
