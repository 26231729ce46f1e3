"""Optimizers and schedules: the step that each makes, to the number where mathematics gives it."""

import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lora_lightning.errors import InputError, RecipeError
from lora_lightning.recipe import parse
from lora_lightning.runs.folder import RunFolder
from lora_lightning.train import optim
from lora_lightning.train.schedule import SHAPES, Schedule, Stretch, warmup_steps
from tests.train.toy import assert_same, saved

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")

NAMES = list(optim.BUILDERS)


def stepped(name, gradient, learning_rate=0.1, start=1.0, **options):
    """A weight of enough elements for 8-bit state, after one step against a constant gradient."""
    weight = nn.Parameter(torch.full((64, 128), start))
    optimizer = optim.build(name, [weight], learning_rate, **options)
    weight.grad = torch.full_like(weight, gradient)
    optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "paged_adamw8bit", "lion", "lion8bit"])
def test_the_first_step_is_the_learning_rate_against_the_sign(name):
    """Of Adam m / sqrt(v) = sign(g) after the bias correction, of Lion sign(m) outright; whatever its size."""
    for gradient in (3.0, -0.02):
        weight = stepped(name, gradient, weight_decay=0.0)
        assert torch.allclose(weight, torch.tensor(1.0 - 0.1 * math.copysign(1, gradient)), atol=2e-4)


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "paged_adamw8bit", "lion", "lion8bit", "adafactor"])
def test_weight_decay_is_decoupled(name):
    """A gradient's step and lr * decay * w beside it."""
    plain, decayed = (stepped(name, 3.0, weight_decay=decay) for decay in (0.0, 0.5))
    assert torch.allclose(plain - decayed, torch.tensor(0.1 * 0.5 * 1.0), atol=6e-3)  # Adafactor decays after its step


def test_adafactor_steps_by_the_learning_rate_from_zero_too():
    """Scaled by the weight's own size, as it comes, it would move B of a LoRA by lr / 1000."""
    weight = stepped("adafactor", 3.0, start=0.0, weight_decay=0.0)
    assert torch.allclose(weight, torch.tensor(-0.1), atol=1e-3)


def test_betas_reach_the_optimizer():
    for name, own in (("adamw", (0.9, 0.999)), ("lion", (0.9, 0.99))):
        weight = nn.Parameter(torch.zeros(3))
        assert tuple(optim.build(name, [weight], 0.1).param_groups[0]["betas"]) == own
        chosen = optim.build(name, [weight], 0.1, betas=(0.5, 0.6)).param_groups[0]["betas"]
        assert tuple(chosen) == (0.5, 0.6)


def test_prodigy_finds_its_own_step():
    weight, target = nn.Parameter(torch.zeros(200)), torch.full((200,), 5.0)
    optimizer = optim.build("prodigy", [weight], 1.0, weight_decay=0.0)
    for _ in range(150):
        weight.grad = (weight.detach() - target).sign()
        optimizer.step()
    assert optimizer.param_groups[0]["d"] > 1e-3  # from 1e-6
    assert (weight - target).abs().max() < 0.5


def test_prodigy_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(InputError, match="prodigyopt") as caught:
        optim.build("prodigy", [nn.Parameter(torch.zeros(2))], 1.0)
    assert "pip install" in caught.value.hint


@pytest.mark.parametrize("name", NAMES)
def test_each_trains_and_goes_on_exactly(toy, tmp_path, name):
    """Two steps, a checkpoint, two more: as four in a row; and the weights did move."""
    rate = 1.0 if name == "prodigy" else 1e-2
    options = {"optimizer": name, "learning_rate": rate, "ema_decay": 0.5}
    before = {key: weight.clone() for key, weight in toy.module(**options).state_dict().items()}
    toy.fit(tmp_path / "straight", steps=4, **options)
    toy.fit(tmp_path / "parted", steps=2, **options)
    toy.fit(tmp_path / "parted", steps=4, **options)
    for part in ("state_dict", "optimizer_states", "average"):
        assert_same(saved(tmp_path / "straight", 4)[part], saved(tmp_path / "parted", 4)[part])
    after = saved(tmp_path / "straight", 4)["state_dict"]
    assert all(not torch.equal(after[key], before[key]) for key in before)


def test_what_does_not_apply_is_refused():
    def problems(**train):
        with pytest.raises(RecipeError) as caught:
            parse({"name": "x", "train": train})
        return {problem.where: problem.message for problem in caught.value.problems}

    assert "adafactor" in problems(optimizer="adafactor", betas=[0.9, 0.99])["train.betas"]
    assert "two numbers" in problems(betas=[0.9])["train.betas"]
    assert "all of 100 steps" in problems(steps=100, warmup=100)["train.warmup"]
    assert "STEPS at LEARNING RATE" in problems(stages=["soon"])["train.stages.0"]
    assert "stages" in problems(stages=["5 at 1e-4"], early_stop=True)["train.early_stop"]


plans = st.builds(
    Schedule,
    st.lists(st.builds(Stretch, st.integers(2, 50), st.floats(1e-6, 1)), min_size=1, max_size=3).map(tuple),
    st.sampled_from(sorted(SHAPES)),
    st.one_of(st.just(0.0), st.floats(0.0, 0.9), st.just(1.0)),
)


@given(plans)
def test_every_rate_is_above_0_and_at_most_the_stretchs_own(plan):
    step = 0
    for stretch in plan.stretches:
        rates = [plan.rate(step + t) for t in range(stretch.steps)]
        step += stretch.steps
        w = warmup_steps(plan.warmup, stretch.steps)
        assert all(0 < rate <= stretch.learning_rate for rate in rates)
        assert rates[:w] == sorted(rates[:w])
        assert rates[w:] == sorted(rates[w:], reverse=True)
        if w < stretch.steps:
            assert rates[w] == stretch.learning_rate
    assert plan.steps == step == plan.ends[-1]


def test_rates_by_hand():
    plan = Schedule((Stretch(10, 1.0), Stretch(4, 0.5)), "linear", warmup=0.2)
    expected = [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    assert [plan.rate(step) for step in range(10)] == pytest.approx(expected)
    assert [plan.rate(step) for step in range(10, 14)] == pytest.approx([0.25, 0.5, 1 / 3, 1 / 6])
    cosine = Schedule((Stretch(4, 1.0),), "cosine")
    assert [cosine.rate(step) for step in range(4)] == pytest.approx([1, 0.5 + 0.5**0.5 / 2, 0.5, 0.5 - 0.5**0.5 / 2])


def test_a_training_steps_by_the_schedule(toy, tmp_path):
    """The rate in the metrics is the one that moved the weights: Lion's step has exactly that size."""
    plan = Schedule((Stretch(4, 1e-2), Stretch(2, 1e-3)), "cosine", warmup=1)
    toy.fit(tmp_path, steps=6, optimizer="lion", learning_rate=plan.rate, weight_decay=0.0)
    rates = [row["learning_rate"] for row in RunFolder(tmp_path).metrics()]
    assert rates == [plan.rate(step) for step in range(6)]
    for step in range(1, 6):
        one, other = (saved(tmp_path, at)["state_dict"] for at in (step, step + 1))
        moved = torch.cat([(other[name] - one[name]).abs().flatten() for name in one])
        assert moved.max().item() == pytest.approx(rates[step], rel=1e-3)
