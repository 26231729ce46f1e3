"""The seed's three files: NAME_captions.txt, NAME_captions.json and NAME_processed_images.zip (0001.png, ...).

The text has one `0001.png: caption` a line, the JSON is `{"captions": {"0001.png": "..."}}`; both leave out pictures
without a caption. The ZIP holds every picture as it is trained on: upright 8-bit RGB.
"""

import io
import zipfile
from pathlib import Path
from typing import BinaryIO

from lora_lightning.datasets.images import open_rgb
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.runs.files import write_atomic, write_json, write_text

_FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # equal datasets give equal ZIPs


def export(dataset: Dataset, output: Path) -> list[Path]:
    """Write the three files into the folder `output`, replacing older ones; returns their paths."""
    pictures = dataset.pictures()
    digits = max(4, len(str(len(pictures))))
    named = {f"{number:0{digits}d}.png": picture for number, picture in enumerate(pictures, start=1)}
    captions = {name: picture.caption for name, picture in named.items() if picture.caption}
    lines = "".join(f"{name}: {caption}\n" for name, caption in captions.items())
    images = output / f"{dataset.name}_processed_images.zip"
    write_atomic(images, lambda file: _write_zip(file, dataset, named))
    return [
        write_text(output / f"{dataset.name}_captions.txt", lines),
        write_json(output / f"{dataset.name}_captions.json", {"captions": captions}),
        images,
    ]


def _write_zip(file: BinaryIO, dataset: Dataset, named: dict[str, Picture]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, picture in named.items():
            png = io.BytesIO()
            open_rgb(dataset.path(picture)).save(png, "PNG")
            archive.writestr(zipfile.ZipInfo(name, _FIXED_TIME), png.getvalue())
