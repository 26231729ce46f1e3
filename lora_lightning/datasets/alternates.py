"""Further captions of a picture beside its caption: a short one, its tags.

The caption is what every trainer gets. The others are exported where a trainer knows them, and a training of ours may
draw among all of them. They are written like the caption, by `Dataset.write_caption` with their kind.
"""

from dataclasses import dataclass

from lora_lightning.datasets import schema
from lora_lightning.datasets.store import Dataset


@dataclass(frozen=True)
class Alternate:
    """A further caption of a picture: its current version."""

    picture: int
    kind: str
    text: str
    version: int
    author: str


def current(dataset: Dataset) -> dict[int, dict[str, Alternate]]:
    """Every further caption that is not empty, by picture number and kind."""
    found: dict[int, dict[str, Alternate]] = {}
    with schema.connection(dataset.database) as db:
        rows = db.execute("SELECT picture, kind, text, max(version), author FROM alternates GROUP BY picture, kind")
        for alternate in (Alternate(*row) for row in rows):  # of a group, SQLite reads the row of its max()
            if alternate.text:
                found.setdefault(alternate.picture, {})[alternate.kind] = alternate
    return found
