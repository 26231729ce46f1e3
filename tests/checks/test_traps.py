"""Every lint of `check`: it appears with the trap, and what its hint says makes it disappear."""

import json
import re
from pathlib import Path

import pytest

from lora_lightning.check import check
from lora_lightning.checks import machine, model, pace, planned
from lora_lightning.checks.pictures import steps_per_picture
from lora_lightning.checks.report import Report
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import RecipeError
from lora_lightning.models.config import SCHNELL_ADAPTER
from lora_lightning.runs.files import write_json
from lora_lightning.runs.gpu import Gpu
from lora_lightning.runs.job import reserve

FIX = re.compile(r"\b((?:[a-z_]+\.)?[a-z_]+=[^\s,;:]+)")
TRAPS = {
    "alpha far below the rank": (["lora.alpha=1"], "lora.alpha", "acts like"),
    "alpha far above the rank": (["lora.alpha=128"], "lora.alpha", "alpha / rank is 8"),
    "rsLoRA with alpha as for LoRA": (["lora.rank=64", "lora.rslora=true"], "lora.alpha", "sqrt"),
    "a rate of another optimizer": (["train.optimizer=prodigy"], "train.learning_rate", "prodigy"),
    "a rate beyond all use": (["train.learning_rate=0.1"], "train.learning_rate", "far more than usual"),
    "a rate that moves nothing": (["train.learning_rate=4e-7"], "train.learning_rate", "hardly move"),
    "a rate that alpha makes nothing of": (
        ["train.learning_rate=2e-5", "lora.alpha=4"], "train.learning_rate", "5e-06"
    ),
    "lion with adam's rate": (["train.optimizer=lion", "train.learning_rate=4e-4"], "train.learning_rate", "lion"),
    "no shift where it matters": (
        ["train.shift=none", "dataset.resolutions=[512,1024]"], "train.shift", "not shifted at 1024"
    ),
    "a shift of 1 is none": (["train.shift=1", "dataset.resolutions=[1024]"], "train.shift", "not shifted"),
    "style shifted twice": (["train.timesteps=style", "train.shift=3"], "train.shift", "on top"),
    "the sign of another convention": (["train.logit_mean=-3"], "train.logit_mean", "little noise"),
    "fast where it cannot be": (["train.fast=true", "lora.dropout=0.1"], "train.fast", "no effect"),
    "few checkpoints": (["train.steps=600", "train.checkpoint_every=600"], "train.checkpoint_every", "up to 600"),
    "an average over everything": (["train.ema_decay=0.999"], "train.ema_decay", "1000 of 180 steps"),
    "judged by nothing": (["train.early_stop=true"], "train.early_stop", "no picture is held out"),
    "stages that nothing judges": (["train.stages=[50 at 1e-5]"], "train.stages", "every stage is kept"),
    "preservation without a word": (["trigger=''", "train.preservation=1"], "train.preservation", "no trigger"),
    "mostly without captions": (["dataset.caption_dropout=0.9"], "dataset.caption_dropout", "90%"),
    "one tag cannot be shuffled": (["dataset.shuffle_tags=4"], "dataset.shuffle_tags", "no caption is a list of tags"),
    "no further captions": (["dataset.all_captions=true"], "dataset.all_captions", "no picture has a further caption"),
    "repeats of everything": (["dataset.repeats=10"], "dataset.repeats", "beside another dataset"),
    "too few steps": (["train.steps=20", "train.checkpoint_every=10"], "train.steps", "little is learned"),
    "too many steps": (["train.steps=3000"], "train.steps", "1000 times"),
    "batches count as well": (["train.batch_size=8", "train.accumulate=2"], "train.steps", "960 times"),
    "sizes that share no batch": (
        ["train.batch_size=8", "train.steps=20", "dataset.resolutions=[48,64,96]"], "train.batch_size", "on average"
    ),
    "too few left to train on": (["dataset.validation_share=0.5"], "dataset.validation_share", "1 trained on"),
    "a resolution that nothing has": (
        ["dataset.resolutions=[64,2048]"], "dataset.resolutions", "no picture is large enough for 2048"
    ),
    "enlarging blurs": (["dataset.enlarge=true", "dataset.resolutions=[2048]"], "dataset.enlarge", "enlarged"),
    "samples without the trigger": (["sample.prompts=[a ZXQUITE, a dog]"], "sample.prompts", "no sample prompt"),
    "a mark that nothing fills": (
        ["trigger=''", "sample.prompts=['[trigger], a dog']"], "sample.prompts", "no trigger word"
    ),
    "no masks": (["dataset.masks=folder"], "dataset.masks", "3 pictures without a mask"),
    "no references": (["dataset.references=true"], "dataset.references", "3 pictures without a reference"),
    "references for a model that knows none": (
        ["dataset.references=true"], "dataset.references", "never shown a reference"
    ),
    "an edit by a model that edits nothing": (
        ["sample.prompts=['ZXQ --reference beach.png']"], "sample.prompts", "edits no picture"
    ),
    "a kind that few read": (["lora.kind=loha"], "lora.kind", "ComfyUI"),
    "4 bit has no shape for lokr": (
        ["lora.kind=lokr", "train.quantize=nf4"], "lora.kind", "cannot be trained on a base in 4 bit"
    ),
    "low VRAM is 4 bit": (["lora.kind=loha", "model.low_vram=true"], "lora.kind", "in 4 bit"),
    "4 bit on a CPU": (["train.quantize=nf4"], "model.low_vram", "slower"),
    "8 bit that low VRAM makes 4": (
        ["model.low_vram=true", "train.quantize=fp8"], "train.quantize", "keeps the base in 4 bit"
    ),
    "nothing to stream to": (["train.stream=2"], "train.stream", "without a GPU"),
    "some blocks of plain ones": (
        ["train.gradient_checkpointing=2", "train.fast=false"], "train.gradient_checkpointing", "all blocks"
    ),
    "low VRAM recomputes": (
        ["model.low_vram=true", "train.gradient_checkpointing=false"], "train.gradient_checkpointing", "recomputes"
    ),
    "a fast path for a LoHa": (["train.fast=true", "lora.kind=loha"], "train.fast", "no effect with this lora.kind"),
    "a fast path for modulation": (
        ["train.fast=true", "lora.targets=modulation"], "train.fast", "no effect with this lora.targets"
    ),
    "a fast path for FLUX.2": (["train.fast=true", "model.base=klein-4b"], "train.fast", "with this model.base"),
    "a fast path beside an adapter": (
        ["train.fast=true", "model.base=schnell"], "train.fast", "no effect with this model.training_adapter"
    ),
    "processes without a GPU": (["train.devices=2", "train.steps=60"], "train.devices", "2 processes share the CPU"),
    "a DoRA with the base in shards": (
        ["train.devices=2", "train.strategy=fsdp", "lora.kind=dora"], "lora.kind", "in shards"
    ),
    "4 bit with the base in shards": (
        ["train.devices=2", "train.strategy=fsdp", "model.low_vram=true"], "model.low_vram", "in shards"
    ),
    "processes count as well": (["train.devices=4"], "train.steps", "240 times"),
    "paging without a GPU": (["train.optimizer=paged_adamw8bit"], "train.optimizer", "page from"),
    "schnell's adapter elsewhere": (
        [f"model.training_adapter={SCHNELL_ADAPTER}"], "model.training_adapter", "made for schnell"
    ),
    "schnell without its adapter": (
        ["model.base=schnell", "model.training_adapter=none", "sample.steps=4"],
        "model.training_adapter",
        "distilled for four steps",
    ),
    "schnell drawn in many steps": (["model.base=schnell"], "sample.steps", "schnell draws in 4"),
    "Kontext without an edit": (["model.base=kontext"], "model.base", "no references"),
    "no content blocks in FLUX.2": (["model.base=klein-4b", "lora.targets=content"], "lora.targets", "FLUX.2"),
    "no DoRA file for FLUX.2": (["model.base=klein-4b", "lora.kind=dora"], "lora.kind", "FLUX.2"),
}  # fmt: skip
BY_HAND = {
    "processes count as well": ["train.devices=1"],
    "a rate beyond all use": ["train.learning_rate=1e-4"],
    "preservation without a word": ["trigger=ZXQ"],
    "a mark that nothing fills": ["trigger=ZXQ"],
    "mostly without captions": ["dataset.caption_dropout=0.1"],
    "no further captions": ["dataset.all_captions=false"],
    "too few left to train on": ["dataset.validation_share=0"],
    "a resolution that nothing has": ["dataset.resolutions=[64]"],
    "samples without the trigger": ["sample.prompts=[a ZXQ]"],
    "no masks": ["dataset.masks=none"],
    "no references": ["dataset.references=false"],
    "no content blocks in FLUX.2": ["lora.targets=all"],
    "batches count as well": ["train.batch_size=1", "train.accumulate=1"],
}
"""Where a hint leaves the choice to the reader."""


def where(problems):
    return [problem.where for problem in problems]


def found(report, place, said):
    problems = [*report.blockers, *report.warnings]
    return [problem for problem in problems if problem.where == place and said in problem.message]


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_named_and_its_hint_is_the_way_out(workspace, ready, name):
    trap, place, said = TRAPS[name]
    problem, *more = found(check(ready(*trap), workspace), place, said)
    assert more == []
    fix = BY_HAND.get(name) or FIX.findall(problem.hint)
    assert fix, problem.hint
    assert found(check(ready(*trap, *fix), workspace), place, said) == []


@pytest.mark.parametrize(
    ("texts", "place", "said"),
    [
        (("ZXQ, " + "word " * 600, "ZXQ, b", "ZXQ, c"), "dataset.name", "tokens that T5 reads"),
        (("word " * 120 + "ZXQ", "ZXQ, b", "ZXQ, c"), "trigger", "behind the"),
        (("ZXQ, a cat",) * 3, "dataset.name", "all 3 captions are the same"),
        (("ZXQ, a", "ZXQ, b", "I cannot help with that image, ZXQ"), "dataset.name", "refusal"),
        (("ZXQ, a", "ZXQ, b", "ZXQ, a red red red red red red red cat"), "dataset.name", "loop"),
        (("a ZXQUITE cat", "ZXQ, b", "zxq, c"), "trigger", "1 caption lacks 'ZXQ'"),
        (("ZXQ, a", "ZXQ, b", ""), "dataset.name", "1 picture is without a caption"),
    ],
)
def test_captions_are_looked_at(workspace, ready, pictures, write_captions, texts, place, said):
    assert found(check(ready(), workspace), place, said) == []
    write_captions(pictures, *texts)
    assert len(found(check(ready(), workspace), place, said)) == 1


def test_flux2_has_no_clip_and_another_reader(workspace, ready, pictures, write_captions):
    write_captions(pictures, "word " * 600 + "ZXQ", "ZXQ, b", "ZXQ, c")
    report = check(ready("model.base=klein-4b"), workspace)
    assert len(found(report, "dataset.name", "the text encoder reads")) == 1
    assert found(report, "trigger", "CLIP") == []


def test_a_mark_in_captions_needs_a_trigger(workspace, ready, pictures, write_captions):
    write_captions(pictures, "[trigger], a", "ZXQ, b", "ZXQ, c")
    assert check(ready(), workspace).warnings == []
    assert (
        found(check(ready("trigger=''"), workspace), "trigger", "[trigger]")[0]
        in check(ready("trigger=''"), workspace).blockers
    )


def test_tags_and_masks_and_references_that_are_there_are_fine(workspace, ready, pictures, write_captions, photos):
    write_captions(pictures, "ZXQ, cat, red", "ZXQ, dog, blue", "ZXQ, cup, green")
    for folder in ("masks", "references"):
        (pictures.folder / folder).mkdir()
        for picture in pictures.pictures():
            stem = picture.name.rpartition(".")[0]
            (pictures.folder / folder / f"{stem}.png").write_bytes(photos[0].read_bytes())
    overrides = ["dataset.shuffle_tags=4", "dataset.masks=folder", "dataset.references=true"]
    report = check(ready(*overrides), workspace)
    assert [each for each in report.warnings if "never shown" not in each.message] == []


def test_a_regularisation_set_that_teaches_the_trigger(workspace, ready, photos, write_captions):
    import_sources(workspace, "class", photos[3:5])
    other = Dataset.open(workspace.dataset("class"))
    write_captions(other, "a ZXQ cat", "a dog")
    mine = ready("dataset.regularisation=class", "dataset.repeats=10")
    report = check(mine, workspace)
    assert where(report.warnings) == ["dataset.regularisation"]
    assert "1 caption of 'class'" in report.warnings[0].message
    write_captions(other, "a cat", "a dog")
    assert check(mine, workspace).warnings == []


def test_what_flux2_can_have_is_what_its_family_says():
    from lora_lightning.models.families.flux2 import PIPELINES, Flux2

    assert (Flux2.kinds, tuple(Flux2.lora_targets)) == (model.FLUX2_KINDS, model.FLUX2_TARGETS)
    assert model.FLUX2 == PIPELINES


@pytest.mark.parametrize(
    ("base", "pipeline"),
    [("dev", "FluxPipeline"), ("krea", "FluxPipeline"), ("kontext", "FluxKontextPipeline"),
     ("klein-9b", "Flux2KleinPipeline"), ("flux2-dev", "Flux2Pipeline"), ("flux-mini", "FluxPipeline"),
     ("me/mine", "")],
)  # fmt: skip
def test_the_kind_of_a_base_is_known_before_it_is_here(base, pipeline):
    assert model.pipeline_of(base) == pipeline


@pytest.mark.parametrize(
    ("capability", "overrides", "place"),
    [
        ((7, 5), [], "train.precision"),
        ((7, 5), ["train.precision=32-true"], ""),
        ((8, 0), [], ""),
        ((0, 0), [], ""),
        ((8, 6), ["lora.kind=dora"], "lora.kind"),
    ],
)
def test_what_a_gpu_cannot_compute_is_said(workspace, ready, monkeypatch, capability, overrides, place):
    card = Gpu(0, "T4", 48_000, 0, 0, 0, 0.0, capability)
    for module in (machine, planned):
        monkeypatch.setattr(module, "gpus", lambda: [card])
    report = check(ready(*overrides), workspace)
    assert where(report.warnings) == ([place] if place else [])


def test_gpus_that_are_not_there_block(workspace, ready, monkeypatch):
    monkeypatch.setattr(machine, "gpus", lambda: [Gpu(0, "x", 80_000, 0, 0, 0, 0.0, (9, 0))] * 2)
    for devices, blocked in ((2, []), ("auto", []), (3, ["train.devices"])):
        assert where(check(ready(f"train.devices={devices}"), workspace).blockers) == blocked


def test_what_a_kind_of_adapter_cannot_stand_on_is_not_chosen(workspace, ready, monkeypatch):
    monkeypatch.setattr(planned, "gpus", lambda: [Gpu(0, "x", 12_000, 0, 0, 0, 0.0, (9, 0))])
    stored = {kind: planned.planned(ready("model.base=dev", f"lora.kind={kind}")).choice for kind in ("lora", "lokr")}
    assert stored["lora"].setting.quantize in ("int8", "nf4")
    assert stored["lokr"].setting.quantize != "nf4"
    assert where(check(ready("lora.kind=lokr"), workspace).blockers) == []


def test_packages_that_are_not_installed_block(workspace, ready, monkeypatch):
    import importlib.util

    assert check(ready("train.optimizer=prodigy", "train.learning_rate=1"), workspace).blockers == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for overrides, place in (
        (["train.optimizer=prodigy", "train.learning_rate=1"], "train.optimizer"),
        (["train.optimizer=adamw", "model.low_vram=true"], "model.low_vram"),
        (["train.optimizer=adamw", "train.quantize=nf4"], "train.quantize"),
    ):
        problem = found(check(ready(*overrides), workspace), place, "is not installed")[0]
        assert "pip install" in problem.hint
    assert check(ready("train.optimizer=adamw"), workspace).blockers == []


def test_a_gated_model_needs_a_licence_and_a_token(monkeypatch):
    monkeypatch.setattr(model.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(model, "get_token", lambda: None)
    report = Report()
    model.check_base("dev", report, {})
    assert "nobody is logged in" in report.blockers[0].message
    assert "accept its licence at https://huggingface.co/black-forest-labs/FLUX.1-dev" in report.blockers[0].hint
    monkeypatch.setattr(model, "get_token", lambda: "hf_x")
    report = Report()
    model.check_base("flux2-dev", report, {})
    assert report.blockers == []
    assert "113 GB" in report.warnings[0].hint
    assert "licence was accepted" in report.warnings[0].hint


def test_steps_a_picture_count_batches_stages_and_what_is_held_out(workspace, ready):
    mine = ready("train.batch_size=2", "train.accumulate=3", "train.stages=[20 at 1e-5]")
    assert steps_per_picture(mine, 10) == 200 * 6 / 10
    held = ready("dataset.validation_share=0.2", "train.batch_size=2")
    assert steps_per_picture(held, 10) == 180 * 2 / 8
    shown = check(ready(), workspace).estimates[0]
    assert (shown.name, shown.amount, shown.shown) == ("steps a picture", 60.0, "60")


def test_time_is_that_of_an_earlier_run_of_the_same_shape_or_unknown(workspace, ready):
    assert pace.time_of(ready(), workspace).shown == "unknown"
    other = reserve(workspace, "train", "other", ready("name=other", "lora.rank=4").to_yaml())
    write_json(other.path / "result.json", {"report": {"steps_per_second": 100.0}})
    assert pace.time_of(ready(), workspace).amount is None
    alike = reserve(workspace, "train", "alike", ready("name=alike", "train.steps=7", "trigger=AB").to_yaml())
    write_json(alike.path / "result.json", {"report": {"steps_per_second": 0.5}})
    estimate = pace.time_of(ready("train.steps=180"), workspace)
    assert (estimate.amount, estimate.unit) == (360.0, "seconds")
    assert "alike" in estimate.why


def test_time_on_a_card_that_was_measured_is_what_the_benchmark_says(workspace, ready, monkeypatch):
    file = Path(__file__).parents[2] / "benchmarks" / "results" / "gpu_train-2026-11-23-memory.json"
    rows = json.loads(file.read_text())["rows"]
    names = {"fast": "fast bf16", "plain": "plain eager, nothing recomputed"}
    for (_, way), seconds in pace.MEASURED.items():
        told = {row["side"]: row["s_per_step"] for row in rows if row["row"] == names[way]}
        assert tuple(told[side] for side in pace.SIDES) == seconds

    for module in (pace, planned):
        monkeypatch.setattr(module, "gpus", lambda: [Gpu(0, "NVIDIA H100 80GB HBM3", 81_559, 0, 0, 0, 0.0, (9, 0))])
    dev = ["model.base=dev", "train.steps=500", "train.accumulate=2"]
    once = "train.gradient_checkpointing=false"
    plain = pace.time_of(ready(*dev, once, "train.fast=false", "dataset.resolutions=[512,1024]"), workspace)
    assert plain.amount == pytest.approx(1000 * (0.5115 + 0.6868) / 2)
    fast = ready(*dev, "train.fast=true", "dataset.resolutions=[512]")
    assert pace.time_of(fast, workspace).amount == pytest.approx(116.1)
    for other in (
        "train.batch_size=2",
        "lora.kind=dora",
        "model.base=klein-4b",
        "train.quantize=int8",
        "model.low_vram=true",
    ):
        assert pace.time_of(ready(*dev, "dataset.resolutions=[512]", other), workspace).shown == "unknown"
    assert pace.time_of(ready(*dev), workspace).shown == "unknown"  # nobody measured 64 pixels


def test_a_field_that_cannot_be_is_refused_before_check(ready):
    with pytest.raises(RecipeError):
        ready("train.huber_delta=0.3")
