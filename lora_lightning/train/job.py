"""`train`: from a dataset and a recipe to a verified LoRA file."""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from diffusers import ModelMixin

from lora_lightning.models import lora, start
from lora_lightning.models.base import Family, open_family
from lora_lightning.models.config import resolve_training_adapter
from lora_lightning.models.device import card_here, choose_device, has_room, reset_peak_memory
from lora_lightning.models.fast.graph import release_graphs, use_graphs
from lora_lightning.models.fast.transformer import speed_up
from lora_lightning.models.lora_files.header import TrainingFacts
from lora_lightning.models.memory import Setting
from lora_lightning.models.sampling import Shot
from lora_lightning.models.shape import shape_of
from lora_lightning.runs.callback import Report
from lora_lightning.runs.files import read_json
from lora_lightning.runs.reporter import Outcome, Reporter
from lora_lightning.train import finish, identity, memory, origin, plan, shards, split
from lora_lightning.train.cache import Cache
from lora_lightning.train.checkpoints import SUFFIX, AtomicCheckpointIO, newest
from lora_lightning.train.choice import Choice, choose
from lora_lightning.train.choice import report as choices
from lora_lightning.train.datamodule import Batches
from lora_lightning.train.fit import Rhythm, fit
from lora_lightning.train.material import Captions, Prepared, check_enough, encode
from lora_lightning.train.mend import Mender
from lora_lightning.train.module import LoraTraining
from lora_lightning.train.objective import Objective
from lora_lightning.train.parts import Freezing
from lora_lightning.train.ranks import Ranks, join
from lora_lightning.train.shots import drawn
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
    ranks = join(recipe.train.devices, recipe.train.num_nodes, reporter.run.path, recipe.train.strategy)
    device = choose_device()
    dtype = torch.bfloat16 if recipe.train.precision == "bf16-mixed" else torch.float32
    files, cpu = recipe.model.files.model_dump(), torch.device("cpu")
    on_cpu = partial(open_family, recipe.model.base, device=cpu, dtype=dtype, files=files)
    family = on_cpu(device=device)
    targets = start.targets_of(family, recipe.lora.targets, recipe.lora.modules, recipe.lora.kind)
    init_from = None if newest(reporter.run.checkpoints) else origin.find(recipe.lora.init_from, workspace)
    prepared = _prepare(recipe, workspace, reporter, family, on_cpu, ranks)
    family.empty_text = prepared.embedding("") if family.needs_empty_text else None

    reporter.phase("loading the model")
    setting = _setting(recipe, family, prepared, reporter, ranks)
    if ranks.sharded:
        shards.check(setting.quantize, recipe.lora.kind)
    holder = on_cpu() if ranks.sharded else family
    transformer = holder.load_transformer(setting.quantize)
    lora.inject(transformer, targets=targets, seed=recipe.seed, **recipe.lora.options)
    assistant = resolve_training_adapter(recipe.model.training_adapter, recipe.model.base)
    from_file = init_from if init_from and init_from.suffix != SUFFIX else None
    start.begin(family, transformer, init_from=from_file, assistant=assistant)
    if ranks.sharded:
        shards.shard(transformer, device, ranks)
    fast = setting.fast and speed_up(transformer, setting.plan)
    if setting.spared and not fast:
        transformer.enable_gradient_checkpointing()
    module = _module(recipe, family, transformer)
    if fast and setting.graph:
        use_graphs(module, list(module.trainable.values()))
    if init_from and not from_file:
        module.begin_from(AtomicCheckpointIO().load_checkpoint(init_from), str(init_from))
    report = Report(reporter, "training", figures=module.figures, gather=ranks.gather)
    watch = _watch(recipe, reporter, prepared, ranks)
    with memory.explained(recipe.name, plan.relief(recipe.train, recipe.dataset.resolutions, setting)):
        last = _fit(recipe, report, module, prepared, watch, ranks)
    release_graphs(module)
    with ranks.together():
        reporter.check_stop()
    choice = choose(module, watch, reporter.run.checkpoints, last, recipe.train.result)
    told = {"plan": asdict(setting)}
    facts, outcome = _facts(recipe, module, prepared, choice, session, ranks), Outcome()

    def conclude() -> None:
        nonlocal outcome
        with module.evaluated():
            made = finish.conclude(report, module, prepared, choice, facts, target, with_kohya=recipe.lora.kohya_file)
        outcome = replace(made, report=made.report | told | choices(watch, choice, reporter.run.checkpoints))

    shards.main_alone(transformer, ranks, conclude)
    return outcome


def _setting(recipe: "Recipe", family: Family, prepared: Prepared, reporter: Reporter, ranks: Ranks) -> Setting:
    """How to hold the base and run a step on this card; processes that train together do alike."""
    shape = shape_of(read_json(family.source.part("transformer") / "config.json"))
    tokens = max(item.bucket.tokens * (2 if item.views[0].reference else 1) for item in prepared.material.items)
    load = plan.load_of(shape, recipe.lora, recipe.train, recipe.sample, tokens)
    flux1 = family.architecture.startswith("flux-1")
    wanted = plan.asked(recipe.model, recipe.lora, recipe.train, flux1=flux1, processes=ranks.count)
    cards = [card for card in ranks.gather(card_here(family.device)) if card and not ranks.sharded]
    card = min(cards, key=lambda card: card.free, default=None)
    return plan.settle(load, wanted, card, reporter.run.path, writes=ranks.main)


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


def _prepare(
    recipe: "Recipe",
    workspace: Workspace,
    reporter: Reporter,
    family: Family,
    on_cpu: Callable[[], Family],
    ranks: Ranks,
) -> Prepared:
    """Freeze the dataset and cache what the encoders give; they are let go before the transformer comes."""
    data, train = recipe.dataset, recipe.train
    check_enough(data.name, [] if data.validation_share else train.judged, recipe.trigger, train.preservation)
    freezing = Freezing(recipe.trigger, data.augment, data.all_captions, data.masks, data.references)
    parts = ranks.main_first(lambda: freezing.parts(data.chosen, data.kept, workspace, reporter.run.path))
    sections = recipe.model_dump(mode="json", include=IDENTITY)
    sections["model"]["low_vram"] = recipe.model.low_vram is True  # auto is settled by the run's plan
    sections["train"]["devices"] = ranks.devices
    ranks.main_only(lambda: identity.check_run(reporter.run, sections))
    taught, remembered = [part for part in parts if part.taught], reporter.run.path / "held_out.json"
    datasets = [part.dataset for part in taught]
    held_out = ranks.main_first(lambda: split.held_out(datasets, data.validation_share, remembered))
    sample, examples = recipe.sample, [example for part in taught for example in part.examples]
    usual = Shot("", sample.seed, sample.width, sample.height, sample.steps, sample.guidance)
    told = drawn(sample.prompts, recipe.trigger, usual, taught, held_out, edits=family.edits)
    cache = Cache(workspace.cache)
    material = encode(
        parts,
        data.resolutions,
        Captions(
            Wording(data.shuffle_tags, data.keep_tags, recipe.seed),
            data.caption_dropout,
            (recipe.trigger, train.class_word) if train.preservation else None,
        ),
        told.prompts + [""] * family.needs_empty_text,
        family=family,
        cache=cache,
        reporter=reporter,
        ranks=ranks,
        reader=None if has_room(family.device, family.text_encoder.folders) else on_cpu(),
    )
    return Prepared(examples, material, held_out, told.shots, told.rows, Mender(cache, on_cpu))


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
        dataset=", ".join(each.name for each in recipe.dataset.chosen),
        captions=tuple(example.caption for example in prepared.examples),
        session=session,
        started=int(session) / 1000,
        finished=time.time(),
    )
