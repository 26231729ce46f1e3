"""Which pictures a caption job describes; importing this needs no torch, so that a page can count them beforehand."""

from collections.abc import Mapping, Sequence

from lora_lightning.datasets.kinds import CAPTION
from lora_lightning.datasets.store import HUMAN, IMPORT, Dataset, Picture


def as_written(dataset: Dataset, pictures: Sequence[Picture], kind: str) -> list[Picture]:
    """Pictures with what they have for a kind of caption in the place of their caption."""
    if kind == CAPTION:
        return list(pictures)
    found = {picture.id: picture for picture in dataset.pictures(include_aside=True, kind=kind)}
    return [found[picture.id] for picture in pictures]


def todo(dataset: Dataset, pictures: Sequence[Picture], existing: str, details: Mapping[str, object]) -> list[Picture]:
    """Those of some pictures that a rule for existing captions lets a captioner describe.

    Args:
        dataset: of the pictures.
        pictures: to choose from, with the captions in question.
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
        return dataset.history(picture.id, picture.kind)[-1].details != details

    return [picture for picture in pictures if wanted(picture)]
