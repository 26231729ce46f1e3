"""Which pictures are held out of training, so that it can be judged by what it has not seen."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lora_lightning.datasets.hashing import groups
from lora_lightning.datasets.measures import measure_all
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.errors import DatasetError
from lora_lightning.runs.files import read_json, write_json

log = logging.getLogger("lora_lightning")

FEWEST_HELD_OUT, FEWEST_TRAINED = 2, 2


def held_out(datasets: Sequence[Dataset], share: float, path: Path) -> frozenset[str]:
    """The contents (SHA-256) of the pictures that a run holds out: chosen at its first start, then read from `path`.

    Args:
        datasets: of the run.
        share: of their pictures; 0 for none.
        path: of the file.

    Raises:
        DatasetError: there are too few pictures.
    """
    if not share:
        return frozenset()
    if not path.is_file():
        pictures: list[Picture] = []
        dhashes: dict[str, int] = {}
        for dataset in datasets:
            there = dataset.pictures()
            pictures += there
            measures = measure_all(dataset, there)
            dhashes |= {picture.sha256: measures[picture.id].dhash for picture in there}
        chosen = choose(list(dhashes), list(dhashes.values()), share)
        names = {picture.file: picture.sha256 for picture in pictures if picture.sha256 in chosen}
        log.info("%d of %d pictures are held out: %s", len(names), len(pictures), ", ".join(names))
        write_json(path, names)
    return frozenset(read_json(path).values())


def choose(contents: Sequence[str], dhashes: Sequence[int], share: float) -> frozenset[str]:
    """Some of the pictures, by their content alone: the same set chooses the same, in whatever order it comes.

    Near duplicates stay on one side: a copy in the training would make the validation look too good.

    Args:
        contents: a hash of each picture's bytes.
        dhashes: the perceptual hash of each.
        share: of the pictures to hold out.

    Raises:
        DatasetError: too few pictures, or too many alike, to leave some on both sides.
    """
    wanted = max(FEWEST_HELD_OUT, round(share * len(contents)))
    alike = groups(np.array(dhashes, np.uint64))
    single = sorted(set(range(len(contents))) - {place for group in alike for place in group})
    units = [*alike, *([place] for place in single)]
    chosen: set[str] = set()
    for unit in sorted((sorted(contents[place] for place in unit) for unit in units), key=lambda unit: unit[0]):
        if len(chosen) + len(unit) <= wanted:
            chosen.update(unit)
    if len(chosen) < FEWEST_HELD_OUT or len(contents) - len(chosen) < FEWEST_TRAINED:
        raise DatasetError(
            f"dataset.validation_share={share:g} needs at least {FEWEST_HELD_OUT + FEWEST_TRAINED} different pictures, "
            f"and there are {len(units)}",
            "Add pictures, or set dataset.validation_share=0.",
        )
    return frozenset(chosen)
