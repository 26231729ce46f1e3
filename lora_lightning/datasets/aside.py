"""Setting pictures aside: they stay in the dataset, but no step uses them; bringing them back is the undo."""

import time
from collections.abc import Iterable, Mapping

from lora_lightning.datasets import schema
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import DatasetError


def set_aside(dataset: Dataset, reasons: Mapping[int, str]) -> list[int]:
    """Set pictures aside, each for a reason that a person can read; one that is aside already keeps its reason.

    Returns:
        The pictures that were in use until now, for `bring_back`.

    Raises:
        DatasetError: there is no such picture; nothing was set aside.
    """
    now = time.time()
    with schema.transaction(dataset.database) as db:
        known = {id for (id,) in db.execute("SELECT id FROM pictures")}
        aside = {id for (id,) in db.execute("SELECT picture FROM aside")}
        if missing := sorted(set(reasons) - known):
            raise DatasetError(f"dataset {dataset.name!r} has no picture number {missing[0]}", "Reload the list.")
        fresh = [id for id in reasons if id not in aside]
        db.executemany("INSERT INTO aside VALUES (?, ?, ?)", [(id, reasons[id], now) for id in fresh])
    return fresh


def bring_back(dataset: Dataset, ids: Iterable[int]) -> None:
    """Use pictures again; harmless for those that are in use."""
    with schema.transaction(dataset.database) as db:
        db.executemany("DELETE FROM aside WHERE picture = ?", [(id,) for id in ids])
