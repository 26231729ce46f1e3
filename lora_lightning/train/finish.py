"""After the last step: the LoRA file, its proof, and a contact sheet of what it does."""

import base64
import io
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diffusers import DiffusionPipeline
from PIL import Image

from lora_lightning.errors import LoraFileError, LoraLightningError, NameProblem
from lora_lightning.models.base import TextEmbedding
from lora_lightning.models.lora_files.diffusers import read_header
from lora_lightning.models.lora_files.verify import SAVED
from lora_lightning.models.sampling import Shot, draw, save_png
from lora_lightning.models.sheet import Row, contact_sheet
from lora_lightning.runs.files import write_atomic
from lora_lightning.runs.reporter import Reporter

log = logging.getLogger("lora_lightning")
MOST_SHEET_PROMPTS = 4
THUMBNAIL_SIDE = 256


@dataclass(frozen=True)
class SheetRow:
    """A row of the contact sheet: one prompt, drawn with the base and with the LoRA."""

    label: str
    shot: Shot


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
    return prompt if _word(trigger).search(prompt) else ", ".join(part for part in (trigger, prompt) if part)


def without_trigger(prompt: str, trigger: str) -> str:
    """The prompt less the trigger word, and less the commas and spaces it leaves behind."""
    rest = _word(trigger).sub("", prompt)
    parts = (" ".join(part.split()) for part in rest.split(","))
    return ", ".join(part for part in parts if part)


def _word(trigger: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(trigger)}(?!\w)")


def refuse_foreign(lora: Path, session: str) -> None:
    """Refuse to overwrite a finished LoRA that another run made.

    Raises:
        NameProblem: there is one.
    """
    if not lora.exists():
        return
    try:
        owner = read_header(lora).get("ss_session_id", "")
    except LoraFileError:
        owner = ""
    if owner != session:
        raise NameProblem(
            f"{lora.parent} holds a LoRA that another run made",
            "Choose another name with name=NEW, or move that folder away.",
        )


def draw_sheet(
    pipeline: DiffusionPipeline,
    rows: Sequence[SheetRow],
    texts: Mapping[str, TextEmbedding],
    reporter: Reporter,
    path: Path,
    title: str,
    subtitle: str,
) -> Path | None:
    """Draw base | LoRA, the LoRA as it was read back from its file; None when drawing fails."""
    transformer = pipeline.transformer
    reporter.phase("drawing the contact sheet", 2 * len(rows))

    def column(done: int) -> list[Image.Image]:
        pictures = []
        for row in rows:
            reporter.check_stop()
            pictures.append(draw(pipeline, row.shot, texts[row.shot.prompt], reporter.check_stop))
            reporter.advance(done + len(pictures))
        return pictures

    try:
        transformer.disable_adapters()
        base = column(0)
        transformer.enable_adapters()
        transformer.set_adapter(SAVED)
        drawn = [
            Row(row.label, pair, f"{row.shot.prompt} (seed {row.shot.seed})")
            for row, *pair in zip(rows, base, column(len(rows)), strict=True)
        ]
        return save_png(contact_sheet(title, ("base", "with LoRA"), drawn, subtitle), path, {"title": title})
    except LoraLightningError:
        raise
    except Exception as error:  # the LoRA is finished; a picture is never worth it
        log.warning("the contact sheet could not be drawn: %s: %s", type(error).__name__, error)
        return None


def thumbnail(picture: Path) -> str:
    """A picture as a small JPEG in a data URI, for the LoRA file's header; empty when it is not there."""
    if not picture.is_file():
        return ""
    with Image.open(picture) as opened:
        small = opened.convert("RGB")
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def copy(source: Path, target: Path) -> Path:
    """Copy a file, atomically."""
    return write_atomic(target, lambda file: file.write(source.read_bytes()))


def move(source: Path, target: Path) -> Path:
    """Move a file, atomically, also to another disk."""
    copy(source, target)
    source.unlink()
    return target
