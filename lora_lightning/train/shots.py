"""What a run draws: its sample pictures, and the rows of its contact sheet."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lora_lightning.models.sampling import Shot
from lora_lightning.train.prompts import parse
from lora_lightning.train.texts import fill, without_trigger, word

MOST_SHEET_PROMPTS = 4


@dataclass(frozen=True)
class SheetRow:
    """A row of the contact sheet: one prompt, drawn with the base and with the LoRA."""

    label: str
    shot: Shot


def shots(prompts: Iterable[str], trigger: str, usual: Shot) -> list[Shot]:
    """Each prompt with its own settings over the usual ones; picture i has the usual seed + i.

    Raises:
        InputError: a prompt says `[trigger]`, and there is no trigger word.
    """
    return [
        Shot(
            fill(wanted.prompt, trigger),
            usual.seed + place if wanted.seed is None else wanted.seed,
            wanted.width or usual.width,
            wanted.height or usual.height,
            wanted.steps or usual.steps,
            usual.guidance if wanted.guidance is None else wanted.guidance,
        )
        for place, wanted in enumerate(map(parse, prompts))
    ]


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
