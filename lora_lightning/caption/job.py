"""`caption`: describes the pictures of a dataset that nobody has described yet."""

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from lora_lightning import plugins
from lora_lightning.caption.base import Captioner, Sampling
from lora_lightning.caption.module import CaptionModule, CaptionWriter, Pictures, Tally
from lora_lightning.caption.sources import Source, fetch, resolve
from lora_lightning.datasets.formats import seed as seed_files
from lora_lightning.datasets.store import HUMAN, IMPORT, Dataset, Picture
from lora_lightning.errors import DatasetError
from lora_lightning.runs.callback import Report
from lora_lightning.runs.reporter import Outcome, Reporter, absolute
from lora_lightning.workspace import Workspace

if TYPE_CHECKING:
    from lora_lightning.recipe import Recipe

log = logging.getLogger("lora_lightning")

KIND = "llava"


def run(recipe: "Recipe", workspace: Workspace, reporter: Reporter) -> Outcome:
    """Caption what has no caption (with `caption.replace`, what a captioner wrote too), then write the seed's files.

    Raises:
        DatasetError: the recipe names no dataset, or one that does not exist.
        ModelError: the captioner cannot be found or opened.
        Stopped: a stop was requested; every caption so far is stored.
    """
    settings = recipe.caption
    if not recipe.dataset.name:
        raise DatasetError("the recipe names no dataset", "Add dataset.name=NAME; `import NAME PICTURES` makes one.")
    dataset = Dataset.open(workspace.dataset(recipe.dataset.name))
    source = resolve(settings.captioner)
    details: dict[str, object] = {
        "model": source.location if source.folder is None else source.folder.name,
        "prompt": settings.prompt,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        "seed": recipe.seed,
    }
    pictures = dataset.pictures()
    todo = [picture for picture in pictures if wanted(dataset, picture, details, replace=settings.replace)]
    writer = CaptionWriter(dataset, source.name, details)
    if todo:
        sampling = Sampling(settings.temperature, settings.top_p, settings.max_tokens)
        module = CaptionModule(_loader(source, reporter), sampling)
        work = Pictures(dataset, todo, settings.prompt, recipe.seed)
        describe(module, work, settings.batch_size, writer, reporter)
    made: dict[str, str | list[str]] = {"dataset": str(dataset.folder)}
    files = _export(dataset, reporter)
    return Outcome(made | ({"files": absolute(*files)} if files else {}), _report(writer.tally, len(pictures)))


def wanted(dataset: Dataset, picture: Picture, details: Mapping[str, object], *, replace: bool) -> bool:
    """Whether to describe a picture: it has no caption, or `replace` is set and a captioner wrote it differently.

    A caption by a person or from an import is always kept; one with the very same `details` would come out the same.
    """
    if not picture.caption:
        return True
    if not replace or picture.author in (HUMAN, IMPORT):
        return False
    return dataset.history(picture.id)[-1].details != details


def describe(module: CaptionModule, work: Pictures, batch_size: int, writer: CaptionWriter, reporter: Reporter) -> None:
    """Run the predict loop; it ends between two batches when a stop is requested."""
    gpu = torch.cuda.is_available()
    ahead, workers = (1, 2) if gpu else (None, 0)  # few: decoded pictures are large
    loader = DataLoader(work, batch_size, collate_fn=list, num_workers=workers, prefetch_factor=ahead)
    trainer = Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=1,
        callbacks=[writer, Report(reporter, "captioning", total=len(work))],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        # Decoding beside the model pays on a GPU only.
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        trainer.predict(module, loader, return_predictions=False)


def _loader(source: Source, reporter: Reporter) -> Callable[[torch.device], Captioner]:
    def load(device: torch.device) -> Captioner:
        reporter.phase("loading the captioner")
        captioner: Captioner = plugins.load("caption/captioners", KIND).build(fetch(source), device)
        return captioner

    return load


def _export(dataset: Dataset, reporter: Reporter) -> list[Path]:
    """The seed's three files; a picture that cannot be read stops them, but no caption is lost by that."""
    reporter.phase("writing the caption files")
    try:
        return seed_files.export(dataset, reporter.run.path / "exports")
    except DatasetError as error:
        log.warning("the caption files were not written: %s", error.message)
        return []


def _report(tally: Tally, pictures: int) -> dict[str, object]:
    return {
        "captioned": tally.captioned,
        "skipped": pictures - tally.captioned - len(tally.failed),
        "failed": tally.failed,
        "images_per_second": round(tally.captioned / tally.seconds, 3) if tally.seconds else 0.0,
    }
