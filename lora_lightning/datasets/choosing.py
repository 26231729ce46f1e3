"""Some of a dataset's pictures, as a recipe names them: by number or by a filter."""

import re
from collections.abc import Sequence

from lora_lightning.datasets import checks, filtering, query
from lora_lightning.datasets.store import Picture
from lora_lightning.datasets.tokens import Meters
from lora_lightning.errors import DatasetError

_NUMBERS = re.compile(r"\s*\d+(\s*,\s*\d+)*\s*")


def named(pictures: Sequence[Picture], chosen: str, meters: Meters, trigger: str, field: str) -> list[Picture]:
    """All pictures, those of the numbers given, or those that a filter lets through.

    Args:
        pictures: to choose from.
        chosen: empty for all, numbers such as `3,17`, or a filter such as `flagged:loop`.
        meters: of the base model.
        trigger: the word that captions are checked for.
        field: of the recipe that holds `chosen`.

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
            raise DatasetError(f"{field}: the dataset uses no picture number {unknown[0]}", "Give others, or a filter.")
        return [by_id[id] for id in dict.fromkeys(ids)]
    wanted = query.parse(chosen)
    asked = "flagged" in chosen.lower()  # checking 10,000 captions takes seconds
    found = checks.run(pictures, meters, trigger=trigger, kind=checks.STYLE) if asked else []
    return filtering.select(pictures, wanted, meters, {check.name: check.ids for check in found})
