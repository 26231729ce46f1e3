"""The planner's arithmetic: true to what was measured, monotone, and never above what a card has."""

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
import torch
from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lightning.models.fast.plan import Plan
from lora_lightning.models.memory import GIB, STATE, Adapter, Load, Setting, predict
from lora_lightning.models.planner import (
    CARDS,
    STREAMED_WORTH,
    WORTH,
    Asked,
    Card,
    as_set,
    card_of,
    choose,
    smallest_card,
    streamed,
)
from lora_lightning.models.reasons import reasons
from lora_lightning.models.shape import adapter_weights, shape_of
from lora_lightning.models.source import CONFIGS
from lora_lightning.models.speed import seconds

DEV_CONFIG = json.loads((CONFIGS / "dev" / "transformer" / "config.json").read_text())
DEV = shape_of(DEV_CONFIG)
ROWS = [
    row
    for file in sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("gpu_train*.json"))
    for row in json.loads(file.read_text())["rows"]
    if "setting" in row and "peak_gib" in row and "error" not in row
]


def measured(row):
    """What the row trained, and how."""
    held = dict(row["setting"])
    plan = Plan(**held.pop("plan"))
    optimizer = STATE[row.get("optimizer", "adamw")]
    return load(row["side"], row.get("batch", 1), optimizer), Setting(**held, plan=plan)


def load(side=1024, batch=1, optimizer=8, drawn=0):
    adapter = Adapter(adapter_weights(DEV, "all", 16), optimizer)
    return Load(DEV, adapter, 512 + side * side // 256, batch=batch, drawn=drawn)


def setting(quantize="none", graph=False, **plan):
    return Setting(quantize, True, graph, Plan(compile=True, dynamic=True, **plan))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['row']} at {row['side']}")
def test_the_peak_is_foretold_within_8_percent_of_every_measured_row(row):
    assert predict(*measured(row)).peak / GIB == pytest.approx(row["peak_gib"], rel=0.08)


def test_of_two_measured_settings_the_faster_one_is_known():
    """Where they differ by a seventh or more, at the same size."""
    assert len(ROWS) >= 12
    wrong = [
        (one["row"], other["row"], one["side"])
        for one, other in permutations(ROWS, 2)
        if one["side"] == other["side"] and one["s_per_step"] * 1.15 < other["s_per_step"]
        if seconds(*measured(one), (9, 0)) >= seconds(*measured(other), (9, 0))
    ]
    assert wrong == []


def test_weights_are_counted_from_the_configuration():
    for kind, options in (
        (FluxTransformer2DModel, {**DEV_CONFIG, "num_layers": 2, "num_single_layers": 3}),
        (FluxTransformer2DModel, {**DEV_CONFIG, "num_layers": 1, "num_single_layers": 1, "guidance_embeds": False}),
        (Flux2Transformer2DModel, {"num_layers": 2, "num_single_layers": 3}),
    ):
        with torch.device("meta"):
            model = kind(**{name: value for name, value in options.items() if not name.startswith("_")})
        counted = shape_of(dict(model.config) | {"_class_name": kind.__name__})
        assert counted.weights == pytest.approx(sum(weight.numel() for weight in model.parameters()), rel=1e-3)


PLANS = st.tuples(*[st.integers(1, 18)] * 3).map(
    lambda counts: dict(zip(("recompute", "bare", "streamed"), counts, strict=True))
)
STORED = st.sampled_from(["none", "int8", "fp8", "nf4"])


@settings(max_examples=60, deadline=None)
@given(STORED, PLANS, st.integers(256, 1536), st.integers(1, 8))
def test_more_tokens_need_more_and_whatever_is_spared_needs_less(quantize, plan, side, batch):
    def peak(side=side, batch=batch, **changes):
        return predict(load(side, batch), setting(quantize, **plan | changes)).peak

    assert peak(side=side + 64) > peak()
    assert peak(batch=batch + 1) > peak()
    assert peak(recompute=plan["recompute"] + 1) < peak()
    assert peak(recompute=plan["recompute"], bare=plan["bare"] + 1) < peak()
    assert peak(streamed=plan["streamed"] + 3) < peak()
    one, two = (seconds(load(side, count), setting(quantize, **plan), (9, 0)) for count in (batch, batch + 1))
    assert one <= two


@settings(max_examples=40, deadline=None)
@given(
    st.floats(5, 90), st.floats(0, 20), st.sampled_from([512, 768, 1024, 1344]), st.integers(1, 4),
    st.sampled_from([(8, 0), (8, 6), (8, 9), (9, 0), (12, 0)]), st.sampled_from(["auto", "none", "fp8", "nf4"]),
    st.sampled_from(["auto", True, False, 30]), st.sampled_from(["auto", True, False]), st.booleans(),
)  # fmt: skip
def test_a_choice_fits_keeps_what_is_set_and_a_larger_card_is_no_slower(
    gib, more, side, batch, capability, quantize, recompute, low_vram, fast
):
    work = load(side, batch, drawn=side * side)
    asked = Asked(quantize, recompute, fast=fast, low_vram=low_vram)
    small, large = (Card(round(size * GIB), capability) for size in (gib, gib + more))
    choice, larger = choose(work, asked, small), choose(work, asked, large)
    assert choice.fits == (choice.need.total <= small.usable)
    assert choice.need == predict(work, choice.setting)
    assert choice.setting.fast is fast
    stored = choice.setting.quantize
    if low_vram is True:
        assert stored == "nf4"
    elif quantize != "auto":
        assert stored == quantize
    elif low_vram is False:
        assert stored == "none"
    if recompute is False and low_vram is not True:
        assert choice.setting.spared == choice.setting.plan.streamed
    if choice.fits:
        assert larger.fits
        best, worst = (seconds(work, each.setting, capability) for each in (larger, choice))
        assert best <= worst * max(WORTH.values()) * STREAMED_WORTH
        if quantize != "auto" or low_vram != "auto":
            assert best <= worst * STREAMED_WORTH


def test_each_usual_card_gets_the_most_exact_base_that_pays():
    chosen = {size: choose(load(1024, optimizer=2, drawn=1024**2), Asked(), card_of(size)) for size in CARDS}
    assert all(choice.fits for choice in chosen.values())
    assert [chosen[size].setting.quantize for size in (24, 80)] == ["int8", "none"]
    assert chosen[80].setting.graph
    assert chosen[80].setting.spared == 0
    assert chosen[8].setting.plan.streamed > 0
    assert all(choice.need.loading <= card_of(size).usable for size, choice in chosen.items())
    assert smallest_card(load(1024), Asked(fast=False, low_vram=False)) == 32
    assert smallest_card(load(1024), Asked()) == 8
    assert smallest_card(load(2048, batch=64), Asked()) is None


def test_what_cannot_fit_is_the_smallest_and_says_so():
    choice = choose(load(1024), Asked(quantize="none"), card_of(12))
    assert not choice.fits
    assert choice.setting.plan.bare == DEV.blocks
    assert reasons(load(1024), Asked(quantize="none"), card_of(12), choice)[-1].endswith("nothing smaller is known")


def test_what_no_graph_was_measured_with_is_planned_without():
    for size in CARDS:
        for low_vram in ("auto", True):
            chosen = choose(load(1024, optimizer=2), Asked(low_vram=low_vram), card_of(size)).setting
            assert not chosen.graph or not (chosen.plan.bare or chosen.plan.streamed)


def test_streaming_takes_the_bare_blocks_first():
    base = setting("int8", recompute=10, bare=5)
    assert streamed(base, 0) == base
    plans = {count: streamed(base, count).plan for count in (3, 8, 40)}
    assert {count: (plan.recompute, plan.bare, plan.streamed) for count, plan in plans.items()} == {
        3: (10, 2, 3), 8: (7, 0, 8), 40: (0, 0, 40),
    }  # fmt: skip
    assert not streamed(setting("int8", graph=True), 1).graph


def test_without_a_card_auto_is_what_it_always_was():
    assert as_set(Asked(), 8).setting == Setting(plan=Plan(bare=8))
    assert as_set(Asked(recompute=False, fast=True), 8).setting == Setting(fast=True)
    assert as_set(Asked(recompute=3, fast=True), 8).setting == Setting(fast=True, plan=Plan(bare=3))
    assert as_set(Asked(recompute=3), 8).setting == Setting(plan=Plan(bare=8))
    assert as_set(Asked(low_vram=True, recompute=False), 8).setting == Setting("nf4", plan=Plan(bare=8))
    assert as_set(Asked("int8", fast=True, barred=("lora.kind",)), 8).setting == Setting("int8", plan=Plan(bare=8))


def test_every_choice_has_its_reason():
    work = load(1024, optimizer=2)
    told = {}
    for size, asked in ((24, Asked()), (80, Asked()), (24, Asked("nf4", recompute=True, fast=False)), (8, Asked())):
        choice = choose(work, asked, card_of(size))
        told[size, asked.fast] = " | ".join(reasons(work, asked, card_of(size), choice))
    assert told[80, "auto"].startswith("base in bf16: it is exact")
    assert "nothing computed again: all fits" in told[80, "auto"]
    assert "base in int8: in bf16 nothing fits 22.5 GiB" in told[24, "auto"]
    assert "kept whole they take" in told[24, "auto"]
    assert "base in 4 bit (nf4): as set | plain blocks: train.fast is not set | 57 of 57 blocks" in told[24, False]
    assert "blocks wait in host memory" in told[8, "auto"]
    without = Asked(compiled=False, barred=())
    choice = choose(work, without, card_of(80))
    assert not choice.setting.plan.compile
    assert "too few to compile" in reasons(work, without, card_of(80), choice)[1]
    assert replace(choice.setting, plan=Plan()).quantize == "none"
