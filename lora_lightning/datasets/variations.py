"""Pictures drawn from those of a dataset, laid aside until a person has looked at each beside its origin.

    DATASET/variations/beach-000003-1f9a22c0.png

They are no part of the dataset: an accepted one joins by an import like any other, with the text it was drawn from as a
machine's caption; its origin, strength, seed and model stay in the caption's details and in its PNG. Taking it back
sets the picture aside, and it waits again.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_lightning.datasets import aside, schema
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.names import portable_stems
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.errors import DatasetError
from lora_lightning.workspace import Workspace

AUTHOR = "variation"
"""Of the caption that a variation joins with."""
TAKEN_BACK = "a variation that was taken back"
State = Literal["waiting", "accepted", "rejected"]


@dataclass(frozen=True)
class Variation:
    """One of them.

    Attributes:
        file: its name inside variations/.
        origin: number of the picture that it was drawn from.
        caption: the text that it was drawn from.
        details: what it takes to draw it again.
    """

    id: int
    file: str
    sha256: str
    origin: int
    caption: str
    details: dict[str, str]
    state: State


def folder(dataset: Dataset) -> Path:
    """Where their files lie."""
    return dataset.folder / "variations"


def lay_aside(dataset: Dataset, origin: Picture, drawn: Path, caption: str, details: Mapping[str, str]) -> None:
    """Let a picture that was drawn from another wait for a person; the same bytes again change nothing."""
    sha256 = hashlib.sha256(drawn.read_bytes()).hexdigest()
    file = f"{portable_stems([origin.name])[0]}-{origin.id:06d}-{sha256[:8]}.png"
    folder(dataset).mkdir(exist_ok=True)
    told = json.dumps(dict(details), sort_keys=True)
    with schema.transaction(dataset.database) as db:
        if db.execute("SELECT 1 FROM variations WHERE sha256 = ?", (sha256,)).fetchone() is None:
            shutil.copyfile(drawn, folder(dataset) / file)
            row = (file, sha256, origin.id, caption, told, time.time())
            db.execute("INSERT INTO variations VALUES (NULL, ?, ?, ?, ?, ?, ?, 'waiting')", row)


def listed(dataset: Dataset, *states: State) -> list[Variation]:
    """Those in some states, the latest first."""
    marks = ", ".join("?" * len(states))
    with schema.connection(dataset.database) as db:
        rows = db.execute(
            "SELECT id, file, sha256, origin, caption, details, state FROM variations "
            f"WHERE state IN ({marks}) ORDER BY id DESC",
            states,
        )
        return [Variation(**(dict(row) | {"details": json.loads(row["details"])})) for row in rows]


def accept(workspace: Workspace, dataset: Dataset, chosen: Sequence[Variation]) -> list[Picture]:
    """Let variations join the dataset; doing it again, after a crash in between, completes it.

    Raises:
        DatasetError: another import is at work, or a file is gone or damaged.
    """
    import_sources(workspace, dataset.name, [folder(dataset) / each.file for each in chosen])
    joined = {picture.sha256: picture for picture in dataset.pictures(include_aside=True)}
    pictures = [joined[each.sha256] for each in chosen if each.sha256 in joined]
    if lost := next((each for each in chosen if each.sha256 not in joined), None):
        raise DatasetError(f"variation {lost.file} is not what was drawn any more", "Reject it and draw it again.")
    names = {picture.id: picture.name for picture in joined.values()}
    for each, picture in zip(chosen, pictures, strict=True):
        if not picture.version and each.caption:
            about = {**each.details, "variation_of": names[each.origin]}
            dataset.write_caption(picture.id, each.caption, author=AUTHOR, details=about, expected_version=0)
    aside.bring_back(dataset, [picture.id for picture in pictures])
    _mark(dataset, chosen, "accepted")
    return pictures


def reject(dataset: Dataset, chosen: Sequence[Variation]) -> None:
    """Decide against variations; their files stay."""
    _mark(dataset, chosen, "rejected")


def take_back(dataset: Dataset, chosen: Sequence[Variation]) -> None:
    """Let variations wait again, whatever was decided; a picture that had joined is set aside."""
    hashes = {each.sha256 for each in chosen if each.state == "accepted"}
    aside.set_aside(dataset, {picture.id: TAKEN_BACK for picture in dataset.pictures() if picture.sha256 in hashes})
    _mark(dataset, chosen, "waiting")


def _mark(dataset: Dataset, chosen: Sequence[Variation], state: State) -> None:
    with schema.transaction(dataset.database) as db:
        db.executemany("UPDATE variations SET state = ? WHERE id = ?", [(state, each.id) for each in chosen])
