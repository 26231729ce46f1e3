"""Fields that nobody would read are refused, not ignored."""

import pytest

from lora_lightning.recipe import inspect
from lora_lightning.train.timesteps import Timesteps


def problems(*overrides):
    return [str(problem) for problem in inspect({"name": "x", "trigger": "TOK"}, overrides).problems]


@pytest.mark.parametrize(
    ("idle", "needed"),
    [
        ("train.logit_mean=1", "train.timesteps=logit_normal"),
        ("train.logit_std=0.5", "train.timesteps=sigmoid"),
        ("train.mode_scale=0.5", "train.timesteps=mode"),
        ("train.huber_delta=0.2", "train.loss=huber"),
        ("train.huber_schedule=exponential", "train.loss=huber"),
        ("train.class_word=person", "train.preservation=1"),
        ("dataset.crop_zoom=2", "dataset.crops=4"),
        ("dataset.keep_tags=2", "dataset.shuffle_tags=4"),
        ("dataset.mask_floor=0.1", "dataset.masks=alpha"),
        ("dataset.regularisation_repeats=2", "dataset.regularisation=class"),
        ("dataset.regularisation_weight=0.5", "dataset.regularisation=class"),
    ],
)
def test_a_field_that_would_do_nothing_is_refused(idle, needed):
    without = "train.timesteps=uniform" if "timesteps" in needed else "name=x"
    (problem,) = problems(without, idle)
    assert problem.startswith(idle.partition("=")[0])
    assert needed.partition("=")[2] in problem or needed.partition("=")[0].partition(".")[2] in problem
    assert problems(needed, idle) == []
    assert problems(without) == []


@pytest.mark.parametrize("beside", ["train.devices=1", "train.quantize=int8", "train.fast=true"])
def test_a_base_is_shared_out_among_several_devices_and_as_it_is(beside):
    (problem,) = problems("train.devices=2", beside, "train.strategy=fsdp")
    assert problem.startswith("train.strategy: fsdp")
    assert problems("train.devices=2", "train.strategy=fsdp") == []


@pytest.mark.parametrize("shift", ["0", "-1", "1000"])
def test_a_shift_that_is_no_factor_is_refused(shift):
    (problem,) = problems(f"train.shift={shift}")
    assert "a shift is a factor above 0" in problem


def test_the_distribution_of_sigma_is_that_of_the_fields():
    found = inspect({"name": "x"}, ["train.logit_mean=0.5", "train.logit_std=2", "train.shift=3"]).recipe
    assert found.train.sigmas == Timesteps("logit_normal", 0.5, 2.0, 1.29, 3.0)
    assert inspect({"name": "x"}).recipe.train.sigmas == Timesteps()
