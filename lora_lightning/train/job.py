"""`train`: from a dataset and a recipe to a verified LoRA file."""

import logging
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import DatasetError
from lora_lightning.models import lora
from lora_lightning.models.base import Family, open_family
from lora_lightning.models.config import PUBLISHED
from lora_lightning.models.device import choose_device, peak_memory_mib, reset_peak_memory, wants_low_vram
from lora_lightning.models.lora_files import diffusers as lora_file
from lora_lightning.models.lora_files.header import TrainingFacts, header
from lora_lightning.models.lora_files.verify import verify
from lora_lightning.models.sampling import Shot
from lora_lightning.runs.callback import Report
from lora_lightning.runs.reporter import Outcome, Reporter, absolute
from lora_lightning.train import finish
from lora_lightning.train.cache import Cache
from lora_lightning.train.callbacks.checkpoint import Checkpoints
from lora_lightning.train.callbacks.samples import Samples
from lora_lightning.train.checkpoints import newest
from lora_lightning.train.datamodule import Batches
from lora_lightning.train.encode import Item, embedding, encode_images, encode_texts
from lora_lightning.train.examples import Example, freeze
from lora_lightning.train.fit import Rhythm, fit
from lora_lightning.train.module import LoraTraining
from lora_lightning.workspace import Workspace

if TYPE_CHECKING:
    from lora_lightning.recipe import Recipe

log = logging.getLogger("lora_lightning")


@dataclass(frozen=True)
class Prepared:
    """Everything that training reads: what is trained on, and what is drawn."""

    examples: list[Example]
    items: list[Item]
    shots: list[Shot]
    rows: list[finish.SheetRow]
    texts: dict[str, Path]


def run(recipe: "Recipe", workspace: Workspace, reporter: Reporter) -> Outcome:
    """Cache, train (from the newest checkpoint when there is one), save, verify, draw the contact sheet.

    Raises:
        InputError: the dataset, the base model or the LoRA's name cannot be used.
        Diverged: the loss is no longer finite.
        Stopped: a stop was requested; everything so far is saved.
    """
    target, session = workspace.lora(recipe.name), _session(reporter)
    finish.refuse_foreign(target, session)
    device = choose_device()
    low_vram = wants_low_vram(recipe.model.low_vram, device)
    dtype = torch.bfloat16 if recipe.train.precision == "bf16-mixed" else torch.float32
    family = open_family(recipe.model.base, device=device, dtype=dtype)
    prepared = _prepare(recipe, workspace, reporter, family)

    reporter.phase("loading the model")
    if low_vram:
        log.info("low VRAM: the base is kept in 4 bit (nf4) and activations are recomputed")
    transformer = family.load_transformer("nf4" if low_vram else recipe.train.quantize)
    lora.inject(
        transformer,
        rank=recipe.lora.rank,
        alpha=recipe.lora.scale * recipe.lora.rank,
        targets=family.lora_targets[recipe.lora.targets],
        seed=recipe.seed,
    )
    if low_vram or recipe.train.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    module = LoraTraining(
        family,
        transformer,
        optimizer=recipe.train.optimizer,
        learning_rate=recipe.train.learning_rate,
        max_gradient_norm=recipe.train.max_gradient_norm,
    )
    report = _fit(recipe, reporter, module, prepared)
    reporter.check_stop()
    return _finish(recipe, workspace, report, module, prepared)


def _prepare(recipe: "Recipe", workspace: Workspace, reporter: Reporter, family: Family) -> Prepared:
    """Freeze the dataset and cache what the encoders give; they are let go before the transformer comes."""
    if not recipe.dataset.name:
        raise DatasetError("the recipe names no dataset", "Add dataset.name=NAME; `import NAME PICTURES` makes one.")
    dataset = Dataset.open(workspace.dataset(recipe.dataset.name))
    examples = freeze(dataset, recipe.trigger, reporter.run.path / "dataset.jsonl")
    shots = _shots(recipe, recipe.sample.prompts)
    rows = finish.sheet_rows(shots or _shots(recipe, (recipe.trigger or examples[0].caption,)), recipe.trigger)
    cache = Cache(workspace.cache)
    wanted = [example.caption for example in examples]
    wanted += [shot.prompt for shot in shots] + [row.shot.prompt for row in rows]
    texts = encode_texts(wanted, family=family, cache=cache, reporter=reporter)
    family.release()
    items = encode_images(
        examples, dataset.images, recipe.dataset.resolutions, texts, family=family, cache=cache, reporter=reporter
    )
    family.release()
    return Prepared(examples, items, shots, rows, texts)


def _shots(recipe: "Recipe", prompts: tuple[str, ...]) -> list[Shot]:
    sample = recipe.sample
    return [
        Shot(prompt, sample.seed + place, sample.width, sample.height, sample.steps, sample.guidance)
        for place, prompt in enumerate(prompts)
    ]


def _fit(recipe: "Recipe", reporter: Reporter, module: LoraTraining, prepared: Prepared) -> Report:
    train = recipe.train
    batches = Batches(
        prepared.items, batch_size=train.batch_size, seed=recipe.seed, timesteps=train.timesteps, shift=train.shift
    )
    reset_peak_memory(module.family.device)
    report = Report(reporter, "training", figures=module.figures)
    embeddings = [embedding(prepared.texts[shot.prompt]) for shot in prepared.shots]
    callbacks = [
        Checkpoints(report, train.checkpoint_every, also_every=train.sample_every),
        Samples(
            report,
            lambda: module.family.pipeline(module.transformer),
            prepared.shots,
            embeddings,
            train.sample_every,
        ),
    ]
    rhythm = Rhythm(train.steps, train.accumulate, train.precision)
    fit(module, batches, rhythm, report, callbacks, newest(reporter.run.checkpoints))
    return report


def _finish(
    recipe: "Recipe", workspace: Workspace, report: Report, module: LoraTraining, prepared: Prepared
) -> Outcome:
    """Save, prove, draw; only a file that was proved comes into output/NAME."""
    reporter, run, folder = report.reporter, report.reporter.run, workspace.lora(recipe.name).parent
    reporter.phase("saving the LoRA")
    samples = sorted(run.samples.glob(f"{recipe.train.steps:07d}-*.png"))
    facts = _facts(recipe, module, prepared, _session(reporter), finish.thumbnail(samples[0]) if samples else "")
    # In the base's precision: every training step rounded A and B to it before multiplying.
    written = lora_file.write(run.path / "lora.safetensors", module.transformer, header(facts), module.family.dtype)
    pipeline = module.family.pipeline(module.transformer)
    error = verify(pipeline, written, module.family.dtype)
    path = finish.move(written, workspace.lora(recipe.name))

    texts = {row.shot.prompt: embedding(prepared.texts[row.shot.prompt]) for row in prepared.rows}
    made_how = f"{facts.base}, {facts.steps} steps, rank {facts.rank}, learning rate {facts.learning_rate:g}"
    sheet_path = run.samples / "sheet.png"
    sheet = finish.draw_sheet(pipeline, prepared.rows, texts, reporter, sheet_path, recipe.name, made_how)
    sheets = [sheet] if sheet else []
    images = [finish.copy(source, folder / "samples" / source.name) for source in [*samples, *sheets]]
    finish.copy(run.recipe_path, folder / "recipe.yaml")
    made: dict[str, str | list[str]] = {"run": str(run.path), "lora": str(path), "images": absolute(*images)}
    if sheet:
        made["sheet"] = str(images[-1])
    return Outcome(made, _figures(recipe, report, module, prepared, path) | {"lora_relative_error": error})


def _facts(recipe: "Recipe", module: LoraTraining, prepared: Prepared, session: str, thumbnail: str) -> TrainingFacts:
    return TrainingFacts(
        name=recipe.name,
        trigger=recipe.trigger,
        base=_public_name(recipe.model.base),
        architecture=module.family.architecture,
        rank=recipe.lora.rank,
        alpha=recipe.lora.scale * recipe.lora.rank,
        targets=recipe.lora.targets,
        steps=recipe.train.steps,
        learning_rate=recipe.train.learning_rate,
        optimizer=recipe.train.optimizer,
        batch_size=recipe.train.batch_size,
        accumulate=recipe.train.accumulate,
        seed=recipe.seed,
        resolutions=recipe.dataset.resolutions,
        dataset=recipe.dataset.name,
        captions=tuple(example.caption for example in prepared.examples),
        session=session,
        started=int(session) / 1000,
        finished=time.time(),
        thumbnail=thumbnail,
    )


def _public_name(base: str) -> str:
    """The base model as a LoRA file may name it: a Hub id, or a folder without its path."""
    return Path(base).name if Path(base).expanduser().is_dir() else PUBLISHED.get(base, base)


def _figures(
    recipe: "Recipe", report: Report, module: LoraTraining, prepared: Prepared, path: Path
) -> dict[str, object]:
    """What was measured; a resumed run that only had to finish takes speed and loss from what it wrote before."""
    stored = report.reporter.run.read_state().get("figures", {})
    buckets = Counter(f"{item.bucket.width}x{item.bucket.height}" for item in prepared.items)
    return {
        "steps": recipe.train.steps,
        "steps_per_second": round(report.steps_per_second or stored.get("steps_per_second", 0.0), 3),
        "final_loss": report.final_loss or stored.get("loss"),
        "peak_memory_mib": peak_memory_mib(module.family.device),
        "lora_mib": round(path.stat().st_size / 2**20, 3),
        "trained_parameters": sum(weight.numel() for weight in module.trainable.values()),
        "pictures": len(prepared.examples),
        "buckets": dict(sorted(buckets.items())),
        "seconds": {phase: round(seconds, 2) for phase, seconds in report.seconds.items()},
    }


def _session(reporter: Reporter) -> str:
    """Tells this run from any other of its name: when it was created, in milliseconds since 1970."""
    return str(round(reporter.run.read_state().get("created", 0.0) * 1000))
