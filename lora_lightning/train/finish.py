"""After the last step: the LoRA file, its proof, and a contact sheet of what it does."""

import base64
import io
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from diffusers import DiffusionPipeline
from PIL import Image

from lora_lightning.errors import LoraFileError, LoraLightningError, NameProblem
from lora_lightning.models.base import TextEmbedding
from lora_lightning.models.config import PUBLISHED
from lora_lightning.models.device import peak_memory_mib
from lora_lightning.models.lora_files import bfl, kohya
from lora_lightning.models.lora_files import diffusers as lora_file
from lora_lightning.models.lora_files.header import TrainingFacts, header
from lora_lightning.models.lora_files.verify import SAVED, verify
from lora_lightning.models.sampling import draw, save_png
from lora_lightning.models.sheet import Row, contact_sheet
from lora_lightning.runs.callback import Report
from lora_lightning.runs.files import write_atomic
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.reporter import Outcome, Reporter, absolute
from lora_lightning.train.choice import Choice
from lora_lightning.train.encode import Item
from lora_lightning.train.material import Prepared
from lora_lightning.train.module import LoraTraining
from lora_lightning.train.shots import SheetRow

log = logging.getLogger("lora_lightning")
THUMBNAIL_SIDE = 256


def session_of(run: RunFolder) -> str:
    """Tells a run from any other of its name: when it was created, in milliseconds since 1970."""
    return str(round(run.read_state().get("created", 0.0) * 1000))


def refuse_foreign(lora: Path, session: str) -> None:
    """Refuse to overwrite a finished LoRA that another run made.

    Raises:
        NameProblem: there is one.
    """
    if not lora.exists():
        return
    try:
        owner = lora_file.read_header(lora).get("ss_session_id", "")
    except LoraFileError:
        owner = ""
    if owner != session:
        raise NameProblem(
            f"{lora.parent} holds a LoRA that another run made",
            "Choose another name with name=NEW, or move that folder away.",
        )


def conclude(
    report: Report,
    module: LoraTraining,
    prepared: Prepared,
    choice: Choice,
    facts: TrainingFacts,
    target: Path,
    *,
    with_kohya: bool,
) -> Outcome:
    """Save, prove, draw; only a file that was proved comes into its place, and its pictures and recipe beside it.

    Args:
        report: of the fit.
        module: with the weights to save.
        prepared: what it was trained on, and what is drawn.
        choice: whose weights they are.
        facts: for the header.
        target: the LoRA file to make.
        with_kohya: also make NAME-kohya.safetensors.

    Raises:
        JobError: the file is not what was trained.
    """
    reporter, run, folder = report.reporter, report.reporter.run, target.parent
    reporter.phase("saving the LoRA")
    samples = sorted(run.samples.glob(f"{choice.step:07d}-*.png"))
    facts = replace(facts, thumbnail=thumbnail(samples[0]) if samples else "")
    pipeline = module.family.pipeline(module.transformer)
    error = save(module, pipeline, facts, run.path, target, with_kohya=with_kohya)

    texts = {row.shot.prompt: prepared.embedding(row.shot.prompt) for row in prepared.rows}
    made_how = f"{facts.base}, {facts.steps} steps, rank {facts.rank}, learning rate {facts.learning_rate:g}"
    sheet_path = run.samples / "sheet.png"
    sheet = draw_sheet(pipeline, prepared.rows, texts, reporter, sheet_path, facts.name, made_how)
    sheets = [sheet] if sheet else []
    images = [copy(source, folder / "samples" / source.name) for source in [*samples, *sheets]]
    copy(run.recipe_path, folder / "recipe.yaml")
    made: dict[str, str | list[str]] = {"run": str(run.path), "lora": str(target), "images": absolute(*images)}
    if sheet:
        made["sheet"] = str(images[-1])
    pictures = len({item.file for item in prepared.trained})
    seen: dict[str, object] = {
        "steps": choice.last,
        "pictures": pictures,
        "steps_per_picture": round(choice.last * facts.batch_size * facts.accumulate / pictures, 2),
    }
    measured = figures(report, module, prepared.trained, target)
    return Outcome(made, seen | measured | {"lora_relative_error": error})


def save(
    module: LoraTraining,
    pipeline: DiffusionPipeline,
    facts: TrainingFacts,
    scratch: Path,
    target: Path,
    *,
    with_kohya: bool,
) -> float:
    """Write the LoRA, prove it, and only then put it in its place.

    Args:
        module: with the weights to save.
        pipeline: around its transformer; afterwards it holds the adapter as it was read back.
        facts: for the header.
        scratch: the folder to write in.
        target: the file to make.
        with_kohya: also make NAME-kohya.safetensors.

    Returns:
        The relative error of the weights that were read back.

    Raises:
        JobError: the file is not what was trained.
    """
    # In the base's precision: every training step rounded A and B to it before multiplying.
    family, transformer, told = module.family, module.transformer, header(facts)
    tensors = bfl.tensors(transformer, family.layout) if family.bfl_files else None
    written = lora_file.write(scratch / "lora.safetensors", transformer, told, family.dtype, tensors)
    error = verify(pipeline, written, family.dtype)
    move(written, target)
    if with_kohya:
        held = kohya.tensors(transformer, family.layout)
        written = lora_file.write(scratch / "kohya.safetensors", transformer, told, family.dtype, held)
        verify(pipeline, written, family.dtype, "kohya")
        move(written, target.with_name(f"{target.stem}-kohya.safetensors"))
    return error


def figures(report: Report, module: LoraTraining, items: Sequence[Item], path: Path) -> dict[str, object]:
    """What was measured; a resumed run that only had to finish takes speed and loss from what it wrote before.

    Args:
        report: of the fit.
        module: what was trained.
        items: what it was trained on.
        path: of the LoRA.
    """
    stored = report.reporter.run.read_state().get("figures", {})
    buckets = Counter(str(item.bucket) for item in items)
    return {
        "steps_per_second": round(report.steps_per_second or stored.get("steps_per_second", 0.0), 3),
        "final_loss": report.final_loss or stored.get("loss"),
        "peak_memory_mib": peak_memory_mib(module.family.device),
        "lora_mib": round(path.stat().st_size / 2**20, 3),
        "trained_parameters": sum(weight.numel() for weight in module.trainable.values()),
        "buckets": dict(sorted(buckets.items())),
        "seconds": {phase: round(seconds, 2) for phase, seconds in report.seconds.items()},
    }


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
            Row(row.label, pictures, f"{row.shot.prompt} (seed {row.shot.seed})")
            for row, *pictures in zip(rows, *_references(rows), base, column(len(rows)), strict=True)
        ]
        columns = ("reference", "base", "with LoRA")[-len(drawn[0].pictures) :]
        return save_png(contact_sheet(title, columns, drawn, subtitle), path, {"title": title})
    except LoraLightningError:
        raise
    except Exception as error:  # the LoRA is finished; a picture is never worth it
        log.warning("the contact sheet could not be drawn: %s: %s", type(error).__name__, error)
        return None


def _references(rows: Sequence[SheetRow]) -> list[list[Image.Image]]:
    """A column of what is edited, blank where nothing is; none if nothing is anywhere."""
    if not any(row.shot.reference for row in rows):
        return []
    blank = Image.new("RGB", (1, 1), "white")
    return [[row.shot.shown if row.shot.reference else blank for row in rows]]


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


def public_name(base: str) -> str:
    """The base model as a LoRA file may name it: a Hub id, or a folder without its path."""
    return Path(base).name if Path(base).expanduser().is_dir() else PUBLISHED.get(base, base)
