"""What a run trains on, frozen at its first start: file, captions, mask and content of each picture."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from lora_lightning.datasets import alternates
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.errors import DatasetError
from lora_lightning.runs.files import write_text
from lora_lightning.train import beside, masks, texts

log = logging.getLogger("lora_lightning")


@dataclass(frozen=True)
class Example:
    """One picture as it is trained on.

    Attributes:
        file: inside images/.
        caption: with the trigger word.
        sha256: of the file.
        width: pixels after EXIF rotation; `height` likewise.
        centre: of its plain cut, as shares of width and height.
        others: its further captions, with the trigger word.
        mask: its path inside the dataset, which is the picture's own for its transparency; empty for none.
        mask_sha256: of that file.
        reference: the path of what it is an edit of, inside the dataset; empty for none.
        reference_sha256: of that file.
    """

    file: str
    caption: str
    sha256: str
    width: int
    height: int
    centre: tuple[float, float] = (0.5, 0.5)
    others: tuple[str, ...] = ()
    mask: str = ""
    mask_sha256: str = ""
    reference: str = ""
    reference_sha256: str = ""

    @property
    def captions(self) -> tuple[str, ...]:
        """All of its captions."""
        return (self.caption, *self.others)


def freeze(
    dataset: Dataset,
    trigger: str,
    path: Path,
    *,
    all_captions: bool = False,
    mask_kind: str = "none",
    references: bool = False,
) -> list[Example]:
    """The examples in `path` (dataset.jsonl); on the first start they are written from the dataset as it is.

    A caption that lacks the trigger gets it first; a picture without a caption gets the trigger, or the empty caption.

    Args:
        dataset: of the run.
        trigger: word; empty for none.
        path: of the file.
        all_captions: also take the further captions of a picture.
        mask_kind: "none", "alpha" or "folder"; see `masks.find`.
        references: each picture is an edit of the one in references/.

    Raises:
        DatasetError: the dataset is empty, a picture lacks its reference, or a file was changed or removed.
        InputError: a caption says `[trigger]`, and there is none.
    """
    if not path.is_file():
        taken = _take(dataset, trigger, all_captions, mask_kind, references)
        write_text(path, "".join(json.dumps(asdict(example), ensure_ascii=False) + "\n" for example in taken))
    examples = [_read(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for example in examples:
        check_unchanged(dataset.images / example.file, example.sha256)
        for file, sha256 in ((example.mask, example.mask_sha256), (example.reference, example.reference_sha256)):
            if file:
                check_unchanged(dataset.folder / file, sha256)
    return examples


def freeze_regularisation(dataset: Dataset, trigger: str, path: Path, *, references: bool = False) -> list[Example]:
    """The examples of a regularisation set, likewise; its captions stay without the trigger word.

    Raises:
        DatasetError: as for `freeze`.
    """
    examples = freeze(dataset, "", path, references=references)
    told = sum(texts.has_trigger(example.caption, trigger) for example in examples) if trigger else 0
    if told:
        found = (told, len(examples), trigger)
        log.warning("%d of %d captions of the regularisation set hold the trigger word %r: they teach it", *found)
    return examples


def content_hash(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_unchanged(path: Path, sha256: str) -> None:
    """Compare a file with the content that it had.

    Raises:
        DatasetError: it was changed or removed.
    """
    name = f"picture {path.name} of dataset {path.parent.parent.name!r}"
    try:
        content = content_hash(path)
    except FileNotFoundError:
        raise DatasetError(f"{name} is gone", "Import it again, or clone the run.") from None
    if content != sha256:
        raise DatasetError(
            f"{name} was changed since it was imported", "Put the original back, or import it anew and clone the run."
        )


def _take(dataset: Dataset, trigger: str, all_captions: bool, mask_kind: str, references: bool) -> list[Example]:
    """The examples of a dataset as it is now."""
    pictures = dataset.pictures()
    if not pictures:
        raise DatasetError(
            f"dataset {dataset.name!r} holds no picture",
            f"Add some with `python -m lora_lightning import {dataset.name} PICTURES`.",
        )
    further = _further_captions(dataset) if all_captions else {}
    mask_of = masks.find(pictures, dataset.folder, mask_kind)
    reference_of = _references(dataset, pictures) if references else {}
    _warn(pictures, trigger)
    if unmasked := len(pictures) - len(mask_of) if mask_kind != "none" else 0:
        log.warning("%d of %d pictures have no mask and are learned whole", unmasked, len(pictures))
    return [
        _example(
            picture,
            [texts.with_trigger(each, trigger) for each in (picture.caption, *further.get(picture.id, [])) if each],
            trigger,
            _beside(dataset, mask_of.get(picture.file, "")),
            _beside(dataset, reference_of.get(picture.file, "")),
        )
        for picture in pictures
    ]


def _further_captions(dataset: Dataset) -> dict[int, list[str]]:
    found = alternates.current(dataset)
    return {picture: [kinds[kind].text for kind in sorted(kinds)] for picture, kinds in found.items()}


class _Beside(NamedTuple):
    """A file that lies beside a picture: its path inside the dataset and its content, both empty for none."""

    file: str
    sha256: str


def _beside(dataset: Dataset, file: str) -> _Beside:
    return _Beside(file, content_hash(dataset.folder / file) if file else "")


def _example(picture: Picture, captions: Sequence[str], instead: str, mask: _Beside, reference: _Beside) -> Example:
    caption, *others = dict.fromkeys(captions) or [instead]
    size, centre = (picture.width, picture.height), (picture.focus_x, picture.focus_y)
    return Example(picture.file, caption, picture.sha256, *size, centre, tuple(others), *mask, *reference)


def _references(dataset: Dataset, pictures: Sequence[Picture]) -> dict[str, str]:
    found = beside.find(pictures, dataset.folder, beside.REFERENCES)
    missing = [picture.name for picture in pictures if picture.file not in found]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(pictures)} pictures have no reference in {dataset.folder / beside.REFERENCES}, "
            f"such as {missing[0]}",
            f"Put the picture before the edit there, as {Path(missing[0]).stem}.png, or set dataset.references=false.",
        )
    return found


def _read(line: str) -> Example:
    row = json.loads(line)
    return Example(**row | {"centre": tuple(row["centre"]), "others": tuple(row["others"])})


def _warn(pictures: Sequence[Picture], trigger: str) -> None:
    captions = [picture.caption for picture in pictures]
    if missing := sum(not caption for caption in captions):
        instead = f"the trigger word {trigger!r}" if trigger else "the empty caption"
        log.warning("%d of %d pictures have no caption; %s is used", missing, len(captions), instead)
    absent = sum(not texts.has_trigger(caption, trigger) for caption in captions if caption) if trigger else 0
    if absent:
        log.warning("%d of %d captions lack the trigger word %r; it is put before them", absent, len(captions), trigger)
