"""From a recipe's words to the planner, and what a run keeps of its plan."""

import json
import logging

import pytest

from lora_lightning.models.config import LoraConfig, ModelConfig
from lora_lightning.models.planner import Asked, card_of
from lora_lightning.models.shape import shape_of
from lora_lightning.models.source import CONFIGS
from lora_lightning.train.config import TrainConfig
from lora_lightning.train.plan import asked, barred, load_of, settle
from lora_lightning.train.prompts import SampleConfig

DEV = shape_of(json.loads((CONFIGS / "dev" / "transformer" / "config.json").read_text()))


def load(**train):
    return load_of(DEV, LoraConfig(), TrainConfig(**train), SampleConfig(prompts=["a --size 512x512"]), 4096)


def test_what_is_trained_is_what_the_sections_say():
    found = load(batch_size=2, preservation=1.0, optimizer="adamw", ema_decay=0.9)
    assert (found.tokens, found.batch, found.passes, found.number, found.drawn) == (4608, 2, 2, 2, 512**2)
    assert (found.adapter.weights, found.adapter.state, found.adapter.averaged) == (65_372_160, 8, True)
    assert load(precision="32-true").number == 4


@pytest.mark.parametrize(
    ("lora", "reasons"),
    [
        ({}, ()),
        ({"kind": "loha"}, ("lora.kind",)),
        ({"dropout": 0.1}, ("lora.dropout",)),
        ({"targets": "modulation"}, ("lora.targets",)),
        ({"modules": r".*attn\.to_[qkv]"}, ()),
        ({"modules": r".*linear.*"}, ("lora.modules",)),
    ],
)
def test_what_the_fast_path_cannot_be_with(lora, reasons):
    assert barred(ModelConfig(), LoraConfig(**lora), TrainConfig(), flux1=True) == reasons
    assert barred(ModelConfig(base="schnell"), LoraConfig(), TrainConfig(), flux1=True) == ("model.training_adapter",)
    assert barred(ModelConfig(), LoraConfig(), TrainConfig(), flux1=False) == ("model.base",)


def test_a_short_training_is_not_compiled_and_processes_have_no_graph():
    told = [
        asked(ModelConfig(), LoraConfig(kind="lokr"), TrainConfig(steps=steps), flux1=True, processes=processes)
        for steps, processes in ((299, 1), (300, 2))
    ]
    assert [(each.compiled, each.alone) for each in told] == [(False, True), (True, False)]
    assert "nf4" not in told[0].storages


def test_a_run_keeps_its_plan_and_goes_on_with_the_base_it_began_with(tmp_path, caplog):
    caplog.set_level(logging.INFO, "lora_lightning")
    first = settle(load(), Asked(), card_of(24), tmp_path, writes=True)
    kept = json.loads((tmp_path / "plan.json").read_text())
    assert kept["quantize"] == first.quantize == "int8"
    assert kept["plan"]["recompute"] == first.plan.recompute > 0
    assert sum(kept["predicted_gib"][part] for part in ("weights", "adapter", "kept", "working")) < kept["usable_gib"]
    assert "plan: base in int8" in caplog.text

    elsewhere = settle(load(), Asked(), card_of(80), tmp_path, writes=True)
    assert (elsewhere.quantize, elsewhere.spared) == ("int8", 0)
    assert settle(load(), Asked("none"), card_of(80), tmp_path, writes=False).quantize == "none"
    assert settle(load(), Asked(), None, tmp_path, writes=False).quantize == "int8"
    assert json.loads((tmp_path / "plan.json").read_text())["plan"]["recompute"] == 0


def test_what_has_no_effect_or_will_hardly_do_is_said(tmp_path, caplog):
    settle(load(), Asked("none", fast=True, barred=("lora.kind",)), card_of(12), tmp_path, writes=True)
    assert "train.fast has no effect with this lora.kind" in caplog.text
    assert "the memory will hardly do" in caplog.text
