"""What a run trains on, frozen at its first start: file, caption and content of each picture."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lora_lightning.datasets.editing import insert_trigger
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import DatasetError
from lora_lightning.runs.files import write_text

log = logging.getLogger("lora_lightning")


@dataclass(frozen=True)
class Example:
    """One picture as it is trained on; width and height in pixels after EXIF rotation."""

    file: str
    caption: str
    sha256: str
    width: int
    height: int


def freeze(dataset: Dataset, trigger: str, path: Path) -> list[Example]:
    """The examples in `path` (dataset.jsonl); on the first start they are written from the dataset as it is.

    A caption that lacks the trigger gets it first; a picture without a caption gets the trigger, or the empty caption.

    Raises:
        DatasetError: the dataset is empty, or a picture was changed or removed.
    """
    if not path.is_file():
        spelt = insert_trigger(trigger).change if trigger else str
        examples = [
            Example(
                picture.file,
                spelt(picture.caption) if picture.caption else trigger,
                picture.sha256,
                picture.width,
                picture.height,
            )
            for picture in dataset.pictures()
        ]
        if not examples:
            raise DatasetError(
                f"dataset {dataset.name!r} holds no picture",
                f"Add some with `python -m lora_lightning import {dataset.name} PICTURES`.",
            )
        _warn(dataset, trigger)
        write_text(path, "".join(json.dumps(asdict(example), ensure_ascii=False) + "\n" for example in examples))
    examples = [Example(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    _check_unchanged(dataset, examples)
    return examples


def _warn(dataset: Dataset, trigger: str) -> None:
    captions = [picture.caption for picture in dataset.pictures()]
    if missing := sum(not caption for caption in captions):
        instead = f"the trigger word {trigger!r}" if trigger else "the empty caption"
        log.warning("%d of %d pictures have no caption; %s is used", missing, len(captions), instead)
    absent = sum(trigger not in caption for caption in captions if caption) if trigger else 0
    if absent:
        log.warning("%d of %d captions lack the trigger word %r; it is put before them", absent, len(captions), trigger)


def _check_unchanged(dataset: Dataset, examples: Sequence[Example]) -> None:
    for example in examples:
        path = dataset.images / example.file
        if not path.is_file():
            raise DatasetError(
                f"picture {example.file} of dataset {dataset.name!r} is gone", "Import it again, or clone the run."
            )
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        if content != example.sha256:
            raise DatasetError(
                f"picture {example.file} of dataset {dataset.name!r} was changed since it was imported",
                "Put the original back, or import it anew and clone the run.",
            )
