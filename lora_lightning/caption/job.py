"""`caption`: describes the pictures of a dataset that nobody has described yet."""

import logging
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Callback, Trainer
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException
from torch.utils.data import DataLoader

from lora_lightning.caption import preview, selection
from lora_lightning.caption.base import Sampling
from lora_lightning.caption.config import PUBLISHED, CaptionConfig
from lora_lightning.caption.module import CaptionModule, Tools
from lora_lightning.caption.plan import Pictures, Plan
from lora_lightning.caption.presets import filled
from lora_lightning.caption.progress import Progress, Shares, Tally
from lora_lightning.caption.setting import Models, Setting
from lora_lightning.caption.sources import Source, resolve
from lora_lightning.caption.writer import CaptionWriter
from lora_lightning.datasets.choosing import named
from lora_lightning.datasets.formats import seed as seed_files
from lora_lightning.datasets.sources import EXPORTED_ZIP
from lora_lightning.datasets.store import Dataset
from lora_lightning.datasets.tokens import meters
from lora_lightning.errors import DatasetError, InputError, JobError
from lora_lightning.models.config import resolve_base
from lora_lightning.runs.callback import Report
from lora_lightning.runs.reporter import Outcome, Reporter, absolute
from lora_lightning.workspace import Workspace

if TYPE_CHECKING:
    from lora_lightning.recipe import Recipe

log = logging.getLogger("lora_lightning")


def run(recipe: "Recipe", workspace: Workspace, reporter: Reporter) -> Outcome:
    """Caption what `caption.pictures` and `caption.existing` choose, then write the seed's files; or preview.

    Raises:
        DatasetError: the recipe names no dataset, or one that does not exist.
        ModelError: the captioner cannot be found or opened.
        Stopped: a stop was requested; every caption so far is stored.
    """
    if not recipe.dataset.name:
        raise DatasetError("the recipe names no dataset", "Add dataset.name=NAME; `import NAME PICTURES` makes one.")
    dataset = Dataset.open(workspace.dataset(recipe.dataset.name))
    settings = recipe.caption
    gauge = meters(resolve_base(recipe.model.base))
    chosen = named(dataset.pictures(), settings.pictures, gauge, recipe.trigger, "caption.pictures")
    made: dict[str, str | list[str]] = {"dataset": str(dataset.folder)}
    if settings.preview:
        compared = [_setting(each, recipe.trigger, recipe.seed) for each in settings.previews()]
        return Outcome(made, {"preview": preview.compare(compared, dataset, chosen, reporter)})
    setting = _setting(settings, recipe.trigger, recipe.seed)
    seen = selection.as_written(dataset, chosen, settings.written_as)
    todo = selection.todo(dataset, seen, settings.existing, setting.details)
    devices = min(settings.devices, len(todo))
    shares = Shares(reporter.run.path / "shares") if devices > 1 else None
    writer = CaptionWriter(dataset, setting.models.source.name, setting.details, Progress(reporter, shares))
    tally, work = writer.tally, Pictures(dataset, todo)
    if shares:
        tally = describe_together(setting, work, writer, reporter, shares, devices)
    elif todo:
        describe(setting, work, writer, reporter)
    files = _export(dataset, workspace, reporter)
    return Outcome(made | ({"files": absolute(*files)} if files else {}), _report(tally, len(chosen)))


def _setting(config: CaptionConfig, trigger: str, seed: int) -> Setting:
    """The captioner and the plan of a recipe.

    Raises:
        ModelError: there is no such captioner or tagger.
        InputError: a prompt asks for a trigger word that is not there.
    """
    if config.endpoint:
        source = Source(config.captioner, PUBLISHED.get(config.captioner, config.captioner))
    else:
        source = resolve(config.captioner)
    plan = Plan(
        prompts=config.asked(trigger),
        sampling=Sampling(config.temperature, config.top_p, config.max_tokens),
        seed=seed,
        draw=config.several == "draw",
        rerolls=config.rerolls,
        prefix=filled(config.prefix, trigger),
        suffix=filled(config.suffix, trigger),
    )
    tagger = resolve(config.tagger) if config.tagger else None
    return Setting(Models(source, config.endpoint, config.quantize, tagger), plan, config.batch_size)


def describe(setting: Setting, work: Pictures, writer: CaptionWriter, reporter: Reporter) -> None:
    """Run the predict loop in this process; it ends between two captions when a stop is requested."""
    report = Report(reporter, "captioning", total=len(work), count=writer.fresh)
    _predict(setting, work, writer, reporter, callbacks=[report])


def describe_together(
    setting: Setting, work: Pictures, writer: CaptionWriter, reporter: Reporter, shares: Shares, devices: int
) -> Tally:
    """Run the predict loop in several processes, one a GPU; each takes its share of the pictures.

    Raises:
        InputError: there are fewer GPUs.
        JobError: a process was killed, or ended by itself.
        Stopped: a stop was requested.
    """
    gpus = torch.cuda.device_count()
    if gpus and gpus < devices:
        raise InputError(f"caption.devices={devices}, but this job has {gpus} GPU", "Set caption.devices lower.")
    reporter.phase("captioning", len(work))
    try:
        _predict(setting, work, writer, reporter, shares=shares, devices=devices)
    except ProcessRaisedException as error:
        reporter.check_stop()
        raise shares.known(error) from error
    except ProcessExitedException as error:
        reporter.check_stop()
        how = error.signal_name or f"exit code {error.exit_code}"
        raise JobError(
            f"one of the {devices} processes that share the pictures was ended ({how})",
            f"Every caption so far is stored; `runs resume {reporter.run.name}` describes the rest.",
        ) from error
    return shares.total()


def _predict(
    setting: Setting,
    work: Pictures,
    writer: CaptionWriter,
    reporter: Reporter,
    callbacks: Sequence[Callback] = (),
    shares: Shares | None = None,
    devices: int = 1,
) -> None:
    gpu = torch.cuda.is_available()
    ahead, workers = (1, 4) if gpu else (None, 0)  # few: decoded pictures are large
    loader = DataLoader(work, setting.size, collate_fn=list, num_workers=workers, prefetch_factor=ahead)
    trainer = Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=devices,
        strategy="ddp_spawn" if shares else "auto",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    load = partial(_loaded, setting, reporter, writer)
    guard = shares.keeping_errors if shares else nullcontext
    module = CaptionModule(load, setting.plan, setting.size, writer.write, guard)
    with warnings.catch_warnings():
        # Decoding beside the model pays on a GPU only.
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        trainer.predict(module, loader, return_predictions=False)


def _loaded(setting: Setting, reporter: Reporter, writer: CaptionWriter, device: torch.device) -> Tools:
    tools = setting.load(device, reporter)
    writer.start()
    return tools


def _export(dataset: Dataset, workspace: Workspace, reporter: Reporter) -> list[Path]:
    """The seed's three files; a picture that cannot be read stops them, but no caption is lost by that."""
    reporter.phase("writing the caption files")
    before = workspace.runs.glob(f"*/exports/{dataset.name}{EXPORTED_ZIP}")
    earlier = max(before, key=lambda path: path.stat().st_mtime_ns, default=None)
    try:
        return seed_files.export(dataset, reporter.run.path / "exports", earlier)
    except DatasetError as error:
        log.warning("the caption files were not written: %s", error.message)
        return []


def _report(tally: Tally, pictures: int) -> dict[str, object]:
    return {
        "captioned": tally.captioned,
        "skipped": pictures - tally.captioned - len(tally.failed),
        "failed": tally.failed,
        "images_per_second": round(tally.images_per_second, 3),
    }
