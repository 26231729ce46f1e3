"""Which pictures a caption job describes; importing this needs no torch, so that a page can count them beforehand."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lora_lightning.datasets import alternates, checks, filtering, query
from lora_lightning.datasets.store import HUMAN, IMPORT, Dataset, Picture
from lora_lightning.datasets.tokens import Meters
from lora_lightning.errors import DatasetError

CAPTION = "caption"
"""The kind that every trainer gets."""
_NUMBERS = re.compile(r"\s*\d+(\s*,\s*\d+)*\s*")


def named(pictures: Sequence[Picture], chosen: str, meters: Meters, trigger: str) -> list[Picture]:
    """The pictures of `caption.pictures`: all, those of the numbers given, or those that a filter lets through.

    Raises:
        DatasetError: there is no picture of a number.
        InputError: the filter has a mistake.
    """
    if not chosen.strip():
        return list(pictures)
    if _NUMBERS.fullmatch(chosen):
        ids = [int(number) for number in chosen.split(",")]
        by_id = {picture.id: picture for picture in pictures}
        unknown = [id for id in ids if id not in by_id]
        if unknown:
            raise DatasetError(
                f"caption.pictures: the dataset uses no picture number {unknown[0]}", "Give others, or a filter."
            )
        return [by_id[id] for id in dict.fromkeys(ids)]
    wanted = query.parse(chosen)
    flags = {check.name: check.ids for check in checks.run(pictures, meters, trigger=trigger, kind=checks.STYLE)}
    return filtering.select(pictures, wanted, meters, flags)


def as_written(dataset: Dataset, pictures: Sequence[Picture], kind: str) -> list[Picture]:
    """Pictures with what they have for a kind of caption in the place of their caption.

    Args:
        dataset: of the pictures.
        pictures: with their captions.
        kind: CAPTION, or that of a further caption.
    """
    if kind == CAPTION:
        return list(pictures)
    found = alternates.current(dataset)
    empty: dict[str, alternates.Alternate] = {}
    others = (found.get(picture.id, empty).get(kind, alternates.Alternate(picture.id, kind)) for picture in pictures)
    return [
        replace(picture, caption=other.text, version=other.version, author=other.author)
        for picture, other in zip(pictures, others, strict=True)
    ]


def todo(
    dataset: Dataset, pictures: Sequence[Picture], kind: str, existing: str, details: Mapping[str, object]
) -> list[Picture]:
    """Those of some pictures that a rule for existing captions lets a captioner describe.

    Args:
        dataset: of the pictures.
        pictures: to choose from, as `as_written` for the kind.
        kind: of caption.
        existing: `keep` leaves every caption; `replace_machine` replaces those by captioners, `replace_all` all.
        details: of the captions to come; a caption made just so would come out the same and stays.
    """

    def wanted(picture: Picture) -> bool:
        if not picture.caption:
            return True
        by_person = picture.author in (HUMAN, IMPORT)
        if existing == "keep" or (by_person and existing != "replace_all"):
            return False
        if by_person:
            return True
        written = dataset.history(picture.id) if kind == CAPTION else alternates.history(dataset, picture.id, kind)
        return written[-1].details != details

    return [picture for picture in pictures if wanted(picture)]
