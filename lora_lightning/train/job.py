"""`train`: from a dataset and a recipe to a verified LoRA file."""

import logging
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from diffusers import ModelMixin

from lora_lightning.datasets.store import Dataset
from lora_lightning.models import lora, start
from lora_lightning.models.base import Family, open_family
from lora_lightning.models.config import resolve_training_adapter
from lora_lightning.models.device import choose_device, reset_peak_memory, wants_low_vram
from lora_lightning.models.fast.graph import use_graphs
from lora_lightning.models.fast.transformer import speed_up
from lora_lightning.models.lora_files.header import TrainingFacts
from lora_lightning.models.sampling import Shot
from lora_lightning.runs.callback import Report
from lora_lightning.runs.reporter import Outcome, Reporter
from lora_lightning.train import finish, identity, memory, origin, split
from lora_lightning.train.cache import Cache
from lora_lightning.train.checkpoints import SUFFIX, AtomicCheckpointIO, newest
from lora_lightning.train.choice import Choice, choose
from lora_lightning.train.choice import report as choices
from lora_lightning.train.datamodule import Batches
from lora_lightning.train.examples import freeze, freeze_regularisation
from lora_lightning.train.fit import Rhythm, fit
from lora_lightning.train.material import Captions, Part, Prepared, check_enough, encode
from lora_lightning.train.mend import Mender
from lora_lightning.train.module import LoraTraining
from lora_lightning.train.objective import Objective
from lora_lightning.train.ranks import Ranks, join
from lora_lightning.train.shots import sheet_rows, shots
from lora_lightning.train.stages import Stages
from lora_lightning.train.texts import Wording
from lora_lightning.train.validation import HeldOut
from lora_lightning.train.watch import Watch
from lora_lightning.train.window import Record
from lora_lightning.workspace import Workspace

if TYPE_CHECKING:
    from lora_lightning.recipe import Recipe

log = logging.getLogger("lora_lightning")
IDENTITY = {"trigger", "seed", "model", "dataset", "lora", "train"}
"""Sections of a recipe that what is learned depends on."""


def run(recipe: "Recipe", workspace: Workspace, reporter: Reporter) -> Outcome:
    """Cache, train (from the newest checkpoint when there is one), save, verify, draw the contact sheet.

    Raises:
        InputError: the dataset, the base model or the LoRA's name cannot be used.
        Diverged: the loss is no longer finite.
        Stopped: a stop was requested; everything so far is saved.
    """
    target, session = workspace.lora(recipe.name), finish.session_of(reporter.run)
    finish.refuse_foreign(target, session)
    ranks = join(recipe.train.devices, recipe.train.num_nodes, reporter.run.path)
    device = choose_device()
    low_vram = wants_low_vram(recipe.model.low_vram, device)
    dtype = torch.bfloat16 if recipe.train.precision == "bf16-mixed" else torch.float32
    family = open_family(recipe.model.base, device=device, dtype=dtype, files=recipe.model.files.model_dump())
    targets = start.targets_of(family, recipe.lora.targets, recipe.lora.modules, recipe.lora.kind)
    init_from = None if newest(reporter.run.checkpoints) else origin.find(recipe.lora.init_from, workspace)
    prepared = _prepare(recipe, workspace, reporter, family, ranks)
    family.empty_text = prepared.embedding("") if family.needs_empty_text else None

    reporter.phase("loading the model")
    if low_vram:
        log.info("low VRAM: the base is kept in 4 bit (nf4) and activations are recomputed")
    transformer = family.load_transformer("nf4" if low_vram else recipe.train.quantize)
    lora.inject(transformer, targets=targets, seed=recipe.seed, **recipe.lora.options)
    assistant = resolve_training_adapter(recipe.model.training_adapter, recipe.model.base)
    from_file = init_from if init_from and init_from.suffix != SUFFIX else None
    start.begin(family, transformer, init_from=from_file, assistant=assistant)
    recomputed = low_vram or recipe.train.gradient_checkpointing
    fast = recipe.train.fast and speed_up(transformer, steps=recipe.train.plan.steps, recomputed=recomputed)
    if recomputed and not fast:
        transformer.enable_gradient_checkpointing()
    module = _module(recipe, family, transformer)
    # Several processes need autograd's own hooks; and with all recomputed there is no room, and less to gain.
    if fast and not recomputed and device.type == "cuda" and ranks.count == 1:
        use_graphs(module, list(module.trainable.values()))
    if init_from and not from_file:
        module.begin_from(AtomicCheckpointIO().load_checkpoint(init_from), str(init_from))
    report = Report(reporter, "training", figures=module.figures, gather=ranks.gather)
    watch = _watch(recipe, reporter, prepared, ranks)
    with memory.explained(recipe.name, _relief(recipe, low_vram)):
        last = _fit(recipe, report, module, prepared, watch, ranks)
    with ranks.together():
        reporter.check_stop()
    choice = choose(module, watch, reporter.run.checkpoints, last, recipe.train.result)
    if not ranks.main:
        return Outcome()
    with module.evaluated():
        facts = _facts(recipe, module, prepared, choice, session, ranks)
        outcome = finish.conclude(report, module, prepared, choice, facts, target, with_kohya=recipe.lora.kohya_file)
    return replace(outcome, report=outcome.report | choices(watch, choice, reporter.run.checkpoints))


def _module(recipe: "Recipe", family: Family, transformer: ModelMixin) -> LoraTraining:
    train = recipe.train
    return LoraTraining(
        family,
        transformer,
        optimizer=train.optimizer,
        learning_rate=train.plan.rate,
        max_gradient_norm=train.max_gradient_norm,
        betas=train.betas,
        weight_decay=train.weight_decay,
        ema_decay=train.ema_decay,
        objective=Objective(train.loss, train.huber_delta, train.huber_schedule, train.loss_weighting),
        preservation=train.preservation,
    )


def _prepare(recipe: "Recipe", workspace: Workspace, reporter: Reporter, family: Family, ranks: Ranks) -> Prepared:
    """Freeze the dataset and cache what the encoders give; they are let go before the transformer comes."""
    data, train = recipe.dataset, recipe.train
    check_enough(data.name, [] if data.validation_share else train.judged, recipe.trigger, train.preservation)
    parts = ranks.main_first(lambda: _parts(recipe, workspace, reporter))
    sections = recipe.model_dump(mode="json", include=IDENTITY)
    sections["model"]["low_vram"] = wants_low_vram(recipe.model.low_vram, family.device)
    sections["train"]["devices"] = ranks.devices
    ranks.main_only(lambda: identity.check_run(reporter.run, sections))
    sample = recipe.sample
    usual = Shot("", sample.seed, sample.width, sample.height, sample.steps, sample.guidance)
    wanted = shots(sample.prompts, recipe.trigger, usual)
    first = recipe.trigger or parts[0].examples[0].caption
    rows = sheet_rows(wanted or [replace(usual, prompt=first)], recipe.trigger)
    cache = Cache(workspace.cache)
    material = encode(
        parts,
        data.resolutions,
        Captions(
            Wording(data.shuffle_tags, data.keep_tags, recipe.seed),
            data.caption_dropout,
            (recipe.trigger, train.class_word) if train.preservation else None,
        ),
        [shot.prompt for shot in wanted] + [row.shot.prompt for row in rows] + [""] * family.needs_empty_text,
        family=family,
        cache=cache,
        reporter=reporter,
        ranks=ranks,
    )
    files = recipe.model.files.model_dump()
    on_cpu = partial(open_family, recipe.model.base, device=torch.device("cpu"), dtype=family.dtype, files=files)
    dataset, remembered = Dataset.open(workspace.dataset(data.name)), reporter.run.path / "held_out.json"
    held_out = ranks.main_first(lambda: split.held_out(dataset, data.validation_share, remembered))
    return Prepared(list(parts[0].examples), material, held_out, wanted, rows, Mender(cache, on_cpu))


def _parts(recipe: "Recipe", workspace: Workspace, reporter: Reporter) -> list[Part]:
    """The dataset, and the regularisation set if there is one, as they are frozen."""
    data, run = recipe.dataset, reporter.run.path
    dataset = Dataset.open(workspace.dataset(data.name))
    examples = freeze(
        dataset,
        recipe.trigger,
        run / "dataset.jsonl",
        all_captions=data.all_captions,
        mask_kind=data.masks,
        references=data.references,
    )
    parts = [Part(dataset.images, examples, data.augment, data.repeats)]
    if data.regularisation:
        other = Dataset.open(workspace.dataset(data.regularisation))
        kept = freeze_regularisation(other, recipe.trigger, run / "regularisation.jsonl", references=data.references)
        parts.append(Part(other.images, kept, data.augment, data.regularisation_repeats, data.regularisation_weight))
    return parts


def _relief(recipe: "Recipe", low_vram: bool) -> list[str]:
    return memory.relief(
        batch_size=recipe.train.batch_size,
        accumulate=recipe.train.accumulate,
        recomputed=low_vram or recipe.train.gradient_checkpointing,
        quantized=low_vram or recipe.train.quantize != "none",
        resolutions=recipe.dataset.resolutions,
        optimizer=recipe.train.optimizer,
    )


def _watch(recipe: "Recipe", reporter: Reporter, prepared: Prepared, ranks: Ranks) -> Watch:
    """What is looked at between the steps; held-out pictures only if there are any."""
    train, record, held_out = recipe.train, None, None
    if prepared.held_out:
        record = Record(reporter.run.path / "validation.json", writes=ranks.main)
        held_out = HeldOut(
            prepared.unseen, seed=recipe.seed, batch_size=train.batch_size, load=prepared.mender, ranks=ranks
        )
    return Watch(
        train.checkpoint_every,
        train.sample_every,
        train.validate_every,
        Stages(train.plan.ends, record),
        record,
        held_out,
        train.early_stop,
    )


def _fit(recipe: "Recipe", report: Report, module: LoraTraining, prepared: Prepared, watch: Watch, ranks: Ranks) -> int:
    """Train on what is not held out, from the newest checkpoint; returns the last step."""
    train, checkpoint = recipe.train, newest(report.reporter.run.checkpoints)
    batches = Batches(
        prepared.trained,
        batch_size=train.batch_size,
        seed=recipe.seed,
        timesteps=train.sigmas,
        reading=prepared.material.reading,
        mask_floor=recipe.dataset.mask_floor,
        load=prepared.mender,
    )
    steps = watch.end(train.plan.steps, checkpoint)
    reset_peak_memory(module.family.device)
    embeddings = [prepared.embedding(shot.prompt) for shot in prepared.shots]
    callbacks = watch.callbacks(report, module, batches.items, prepared.shots, embeddings, ranks)
    rhythm = Rhythm(steps, train.accumulate, train.precision, recipe.dataset.workers)
    return fit(module, batches, rhythm, report, callbacks, checkpoint, ranks)


def _facts(
    recipe: "Recipe", module: LoraTraining, prepared: Prepared, choice: Choice, session: str, ranks: Ranks
) -> TrainingFacts:
    return TrainingFacts(
        name=recipe.name,
        trigger=recipe.trigger,
        base=finish.public_name(recipe.model.base),
        architecture=module.family.architecture,
        rank=recipe.lora.rank,
        alpha=recipe.lora.options["alpha"],
        targets=recipe.lora.modules or recipe.lora.targets,
        steps=choice.step,
        learning_rate=recipe.train.learning_rate,
        optimizer=recipe.train.optimizer,
        batch_size=recipe.train.batch_size * ranks.count,
        accumulate=recipe.train.accumulate,
        seed=recipe.seed,
        resolutions=recipe.dataset.resolutions,
        dataset=recipe.dataset.name,
        captions=tuple(example.caption for example in prepared.examples),
        session=session,
        started=int(session) / 1000,
        finished=time.time(),
    )
