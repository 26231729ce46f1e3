"""What a run draws: its sample pictures, and the rows of its contact sheet."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_lightning.errors import InputError
from lora_lightning.models.sampling import Shot
from lora_lightning.train.parts import Part
from lora_lightning.train.prompts import Wanted, parse
from lora_lightning.train.texts import fill, without_trigger, word

log = logging.getLogger("lora_lightning")
MOST_SHEET_PROMPTS = 4


@dataclass(frozen=True)
class SheetRow:
    """A row of the contact sheet: one prompt, drawn with the base and with the LoRA."""

    label: str
    shot: Shot


@dataclass(frozen=True)
class Drawn:
    """What a run draws: samples while it trains, and the contact sheet at its end."""

    shots: list[Shot]
    rows: list[SheetRow]

    @property
    def prompts(self) -> list[str]:
        """All texts that are needed."""
        return [shot.prompt for shot in (*self.shots, *(row.shot for row in self.rows))]


def drawn(
    prompts: Sequence[str],
    trigger: str,
    usual: Shot,
    parts: Sequence[Part],
    held_out: Collection[str],
    *,
    edits: bool,
) -> Drawn:
    """What a run draws; edits are of the dataset's references, unless a prompt names another picture.

    Args:
        prompts: of the samples; without any, the sheet shows the trigger, or the first caption.
        trigger: the trigger word.
        usual: the settings where a prompt has none.
        parts: what is learned.
        held_out: the contents (SHA-256) of those that are not trained on; their references come first.
        edits: whether the model can be shown a reference.

    Raises:
        InputError: as for `shots`.
    """
    found = [(part.dataset.folder, example) for part in parts for example in part.examples if example.reference]
    edited = sorted(found if edits else [], key=lambda each: each[1].sha256 not in held_out)
    shown: dict[str, str] = {}
    for folder, example in edited:
        shown.setdefault(Path(example.reference).stem, str(folder / example.reference))
    wanted = shots(prompts, trigger, usual, shown if edits else None)
    if wanted:
        return Drawn(wanted, sheet_rows(wanted, trigger))
    caption = edited[0][1].caption if edited else trigger or parts[0].examples[0].caption
    first = replace(usual, prompt=caption, reference=next(iter(shown.values()), ""))
    return Drawn([], sheet_rows([first.in_its_shape()], trigger))


def shots(prompts: Iterable[str], trigger: str, usual: Shot, shown: Mapping[str, str] | None) -> list[Shot]:
    """Each prompt with its own settings over the usual ones; picture i has the usual seed + i, and reference i.

    A picture with a reference takes its shape, unless its prompt says a size.

    Args:
        prompts: as `prompts.parse` reads them.
        trigger: the trigger word.
        usual: the settings where a prompt has none.
        shown: the references of the dataset, by the names of its pictures without their endings; None for a model
            that edits nothing.

    Raises:
        InputError: a prompt says `[trigger]`, and there is no trigger word; or there is no such reference.
    """
    found, parsed = [], [parse(prompt) for prompt in prompts]
    if shown is None and any(wanted.reference for wanted in parsed):
        log.warning("this model edits no picture: the references of the sample prompts are left out")
    for place, wanted in enumerate(parsed):
        shot = Shot(
            fill(wanted.prompt, trigger),
            usual.seed + place if wanted.seed is None else wanted.seed,
            wanted.width or usual.width,
            wanted.height or usual.height,
            wanted.steps or usual.steps,
            usual.guidance if wanted.guidance is None else wanted.guidance,
            "" if shown is None else _reference(wanted, place, shown),
        )
        found.append(shot if wanted.width else shot.in_its_shape())
    return found


def _reference(wanted: Wanted, place: int, shown: Mapping[str, str]) -> str:
    if wanted.reference is None:
        return [*shown.values()][place % len(shown)] if shown else ""
    path = Path(wanted.reference).expanduser()
    if path.is_file():
        return str(path)
    named = shown.get(wanted.reference) or shown.get(path.stem)
    if not named:
        some = f", such as {next(iter(shown))}" if shown else " that has a reference"
        raise InputError(
            f"sample prompt {wanted.prompt!r}: there is no reference {wanted.reference}",
            f"Name a file, or a picture of the dataset{some}.",
        )
    return named


def sheet_rows(shots: Sequence[Shot], trigger: str) -> list[SheetRow]:
    """Each prompt with the trigger word and without it, from the same seed."""
    rows = []
    for shot in shots[:MOST_SHEET_PROMPTS]:
        if not trigger:
            rows.append(SheetRow("prompt", shot))
            continue
        rows.append(SheetRow("with trigger", replace(shot, prompt=with_trigger(shot.prompt, trigger))))
        rows.append(SheetRow("without trigger", replace(shot, prompt=without_trigger(shot.prompt, trigger))))
    return rows


def with_trigger(prompt: str, trigger: str) -> str:
    """The prompt, which begins with the trigger word unless it holds it already."""
    return prompt if word(trigger).search(prompt) else ", ".join(part for part in (trigger, prompt) if part)
