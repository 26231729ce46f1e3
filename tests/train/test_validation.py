"""Held-out pictures: which, what they say, and what is done about it."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_lightning.errors import DatasetError
from lora_lightning.models.lora_files import diffusers as lora_file
from lora_lightning.runs.folder import RunFolder
from lora_lightning.train import finish, split
from lora_lightning.train.callbacks.stages import StageGate
from lora_lightning.train.callbacks.validation import Validation
from lora_lightning.train.checkpoints import newest
from lora_lightning.train.preserve import base_alone
from lora_lightning.train.stages import Stages
from lora_lightning.train.validation import NOISES, SIGMAS, HeldOut
from lora_lightning.train.window import BASE, Record
from tests.train.toy import Toy, altered, assert_same, saved

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")

UNITS, EIGHT = 4, list(SIGMAS)


def record(path, **ratios):
    """Base losses that grow with sigma, and for each step (`at_10=`) the log ratios of each unit to them."""
    found = Record(path / "validation.json")
    base_US = np.outer(np.ones(UNITS), 1 + np.arange(8))
    found.add(BASE, EIGHT, base_US)
    for name, ratio_U in ratios.items():
        found.add(int(name.removeprefix("at_")), EIGHT, base_US * np.exp(np.array(ratio_U, float).reshape(UNITS, -1)))
    return found


def test_the_change_is_the_mean_log_ratio_with_the_error_of_the_pairs(tmp_path):
    change = record(tmp_path, at_10=[-0.1, -0.2, -0.3, -0.4]).change(10)
    assert change.mean == pytest.approx(-0.25)
    assert change.error == pytest.approx(np.std([0.1, 0.2, 0.3, 0.4], ddof=1) / 2)
    assert change.percent == pytest.approx(100 * (math.exp(-0.25) - 1))
    assert change.better


def test_bands_are_told_apart(tmp_path):
    by_sigma = [[-0.3, -0.3, 0.1, 0.1, 0.1, 0.0, 0.0, 0.0]] * UNITS
    figures = record(tmp_path, at_10=by_sigma).figures(10)
    assert figures["validation/detail"] == pytest.approx(math.exp(-0.3))
    assert figures["validation/structure"] == pytest.approx(math.exp(0.1))
    assert figures["validation/layout"] == pytest.approx(1.0)
    assert figures["validation/all"] == pytest.approx(math.exp(-0.3 / 8))


def test_the_first_step_as_good_as_the_best_is_proposed(tmp_path):
    """40 is the lowest; 30 differs from it by less than its standard error in pairs, 20 by more."""
    found = record(
        tmp_path, at_10=[-0.1] * 4, at_20=[-0.24, -0.26, -0.25, -0.25], at_30=[-0.25, -0.34, -0.28, -0.31],
        at_40=[-0.30, -0.30, -0.30, -0.30], at_50=[-0.2] * 4,
    )  # fmt: skip
    assert found.best() == 40
    assert found.proposed([10, 20, 30, 40, 50]) == 30
    assert found.proposed([10, 20, 40, 50]) == 40  # a checkpoint that is gone cannot be proposed
    assert Record(tmp_path / "validation.json").proposed([30, 40]) == 30  # read back


def test_nothing_is_proposed_when_the_base_is_better(tmp_path):
    assert record(tmp_path, at_10=[0.1] * 4, at_20=[0.2] * 4).proposed([10, 20]) is None
    assert record(tmp_path / "new").proposed([]) is None


def test_overfitting_needs_two_bands_and_three_validations(tmp_path):
    noise = [0.001, -0.001, 0.002, -0.002]
    lowest, worse = [-0.3 + n for n in noise], [-0.2 - n for n in noise]
    one_band = [[-0.2 - n] * 2 + [-0.3 - n] * 6 for n in noise]
    found = record(tmp_path, at_10=[-0.1] * 4, at_20=lowest, at_30=worse, at_40=one_band, at_50=worse)
    assert [step for step in found.steps if found.overfitted(step)] == [30, 50]
    assert not found.should_stop()
    assert not record(tmp_path / "two", at_20=lowest, at_30=worse, at_40=worse).should_stop()
    assert record(tmp_path / "three", at_20=lowest, at_30=worse, at_40=worse, at_50=worse).should_stop()


def contents(count):
    return [f"{random.Random(n).getrandbits(256):064x}" for n in range(count)]


@given(st.integers(4, 12), st.floats(0.01, 0.5), st.randoms(use_true_random=False))
def test_the_split_depends_on_the_contents_alone(count, share, order):
    dhashes = [random.Random(n).getrandbits(64) for n in range(count)]  # unlike each other
    names = contents(count)
    chosen = split.choose(names, dhashes, share)
    assert len(chosen) == min(max(2, round(share * len(names))), len(names))
    pairs = list(zip(names, dhashes, strict=True))
    order.shuffle(pairs)
    assert split.choose(*zip(*pairs, strict=True), share) == chosen


@given(st.integers(0, 9), st.integers(0, 9), st.floats(0.1, 0.5))
def test_near_duplicates_are_on_one_side(one, other, share):
    dhashes = [random.Random(n).getrandbits(64) for n in range(10)]
    dhashes[other] = dhashes[one] ^ 0b101
    names = contents(10)
    chosen = split.choose(names, dhashes, share)
    assert (names[one] in chosen) == (names[other] in chosen)


def test_too_few_pictures_are_refused():
    with pytest.raises(DatasetError, match="at least 4 different pictures, and there are 3"):
        split.choose(contents(3), [0, 2**20 - 1, 2**63 - 1], 0.2)
    with pytest.raises(DatasetError, match="there are 1"):
        split.choose(contents(5), [7] * 5, 0.2)


def test_triples_are_fixed_and_measuring_changes_nothing(toy):
    module = toy.module()
    held = HeldOut(toy.pictures[:3], seed=0, batch_size=3)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = held.losses(module)
    assert torch.equal(torch.get_rng_state(), state)
    assert module.transformer.training
    assert first.shape == (3 * NOISES, len(SIGMAS))
    assert len(np.unique(first.round(9))) == first.size
    assert np.array_equal(HeldOut(toy.pictures[:3], seed=0, batch_size=3).losses(module), first)
    assert np.allclose(HeldOut(toy.pictures[:3], seed=0, batch_size=8).losses(module), first, rtol=1e-5)
    assert not np.allclose(HeldOut(toy.pictures[:3], seed=1, batch_size=3).losses(module), first, rtol=1e-3)


def test_the_loss_of_a_triple_is_the_equation(toy):
    module = toy.module(adapter={"dropout": 0.0})
    held = HeldOut(toy.pictures[:1], seed=0, batch_size=8)
    sample = held._batches[0][1]  # its second noise
    sigma = torch.tensor([SIGMAS[6]])
    x = (1 - sigma) * sample.x0_BCHW + sigma * sample.noise_BCHW
    with torch.no_grad():
        velocity = toy.family.velocity(module.transformer, x, sigma, sample.text)
    expected = ((velocity - (sample.noise_BCHW - sample.x0_BCHW)) ** 2).mean().item()
    assert held.losses(module)[1, 6] == pytest.approx(expected, rel=1e-5)


def test_the_base_is_what_the_adapter_stands_on(toy):
    """A new adapter changes nothing, so its losses are the base's; later they differ, and the base's do not."""
    module, held = toy.module(), HeldOut(toy.pictures[:2], seed=0, batch_size=8)
    before = held.losses(module)
    for name, weight in module.trainable.items():
        if "lora_B" in name:
            weight.data.normal_(std=0.3)
    with base_alone(module.transformer):
        assert np.array_equal(held.losses(module), before)
    assert not np.allclose(held.losses(module), before, rtol=1e-3)


@pytest.fixture
def watched(toy, tmp_path):
    """Trains on three pictures and validates on the others."""

    def train(name, *, early_stop=False, every=2, learned=toy.pictures[:3], held=toy.pictures[3:], **options):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        found = Record(folder / "validation.json")
        held_out = HeldOut(held, seed=0, batch_size=8)
        also = [lambda report: Validation(report, held_out, found, lambda step: step % every == 0, early_stop)]
        Toy(toy.family, learned).fit(folder, also=also, **options)
        return found

    return train


def test_validation_does_not_change_training_and_goes_on_exactly(toy, watched, tmp_path):
    Toy(toy.family, toy.pictures[:3]).fit(tmp_path / "without", steps=6)
    straight = watched("straight", steps=6)
    watched("parted", steps=3)
    parted = watched("parted", steps=6)
    assert_same(saved(tmp_path / "without", 6)["state_dict"], saved(tmp_path / "straight", 6)["state_dict"])
    assert straight.steps == parted.steps == [2, 4, 6]
    assert (tmp_path / "straight" / "validation.json").read_text() == (tmp_path / "parted/validation.json").read_text()
    assert RunFolder(tmp_path / "straight").metrics() == RunFolder(tmp_path / "parted").metrics()
    rows = [row for row in RunFolder(tmp_path / "straight").metrics() if "validation/all" in row]
    assert [row["validation/all"] for row in rows] == [math.exp(straight.change(step).mean) for step in (2, 4, 6)]


def test_early_stop_ends_an_overfitting_run(watched, toy, tmp_path):
    """What it learns is the contrary of what is held out, so every look is worse than the one before."""
    learned = [altered(item, tmp_path / "cache", lambda tensor: tensor + 2) for item in toy.pictures[:2]]
    held = [altered(item, tmp_path / "cache", lambda tensor: tensor - 2) for item in toy.pictures[3:]]
    options = {"steps": 60, "every": 3, "learned": learned, "held": held}
    options |= {"adapter": {"targets": "proj_out"}, "learning_rate": 0.03}
    found = watched("greedy", early_stop=True, **options)
    assert found.should_stop()
    assert len(found.steps) >= 3
    last = found.steps[-1]
    assert last < 60
    assert max(row["step"] for row in RunFolder(tmp_path / "greedy").metrics()) == last
    assert newest(RunFolder(tmp_path / "greedy").checkpoints).step == last
    assert watched("patient", **options).steps[-1] == 60


CHOSEN = ("dataset.validation_share=0.3", "train.validate_every=2", "train.checkpoint_every=2", "sample.prompts=[]")


@pytest.fixture
def gallery(home, photos):
    """A dataset of eight photographs."""
    from lora_lightning.datasets.importing import import_sources

    import_sources(home, "gallery", photos[:8])
    return home


def test_held_out_pictures_are_not_trained_on(train, recipe, gallery):
    outcome = train(recipe("dataset.name=gallery", *CHOSEN, "train.steps=12"))
    run = RunFolder(gallery.run("short"))
    held = json.loads((run.path / "held_out.json").read_text())
    trained = {json.loads(line)["file"] for line in (run.path / "pictures.jsonl").read_text().splitlines()}
    assert len(held) == 2
    assert len(trained) == 6
    assert not trained & held.keys()
    assert outcome.report["pictures"] == 6
    assert set(outcome.report["held_out_change_percent"]) == {2, 4, 6, 8, 10, 12}


def test_the_best_checkpoint_becomes_the_lora(train, recipe, gallery):
    """A rate that spoils what it learned at first; the file holds the proposed checkpoint's weights, not the last."""
    options = ("dataset.name=gallery", *CHOSEN, "train.steps=20", "train.learning_rate=0.03", "train.result=best")
    outcome = train(recipe(*options))
    proposed = outcome.report["proposed_step"]
    assert proposed is not None
    checkpoint = saved(gallery.run("short"), proposed)["state_dict"]
    assert outcome.report["proposed_checkpoint"].endswith(f"{proposed:07d}.ckpt")
    written = lora_file.read(Path(outcome.made["lora"]))
    assert written.header["ss_steps"] == str(proposed)
    for key, tensor in written.tensors.items():
        assert torch.equal(tensor, checkpoint[key.replace(".weight", ".default.weight")])
    changes = outcome.report["held_out_change_percent"]
    assert changes[proposed] < 0
    found = Record(RunFolder(gallery.run("short")).path / "validation.json")
    assert found.change(found.best()).mean == min(found.change(step).mean for step in found.steps)


def test_a_run_that_stopped_early_is_finished_and_stays_so(train, recipe, gallery, monkeypatch):
    """Any three validations count as overfitting here; killed before its LoRA is written, it does not train on."""
    monkeypatch.setattr(Record, "overfitted", lambda *_: True)
    monkeypatch.setattr(finish, "save", lambda *_, **__: 1 / 0)
    wanted = recipe("dataset.name=gallery", *CHOSEN, "train.steps=30", "train.early_stop=true")
    with pytest.raises(Exception, match="division"):
        train(wanted)
    monkeypatch.undo()
    monkeypatch.setattr(Record, "overfitted", lambda *_: True)
    outcome = train(wanted)
    assert outcome.report["steps"] == 6
    assert lora_file.read(Path(outcome.made["lora"])).header["ss_steps"] == "6"
    assert max(row["step"] for row in RunFolder(gallery.run("short")).metrics()) == 6


def test_stages_follow_from_the_record(tmp_path):
    """Stage 2 helped, 3 did not, so 4 begins where 2 ended, and helped."""
    helped, noise = -0.1, [0.001, -0.001, 0.002, -0.002]
    found = record(
        tmp_path, at_10=[0.0] * 4, at_15=[helped + n for n in noise], at_18=noise,
        at_20=[2 * helped + n for n in noise],
    )  # fmt: skip
    stages = Stages((10, 15, 18, 20), found)
    assert [(v.start, v.end, v.kept) for v in stages.verdicts(20)] == [(10, 15, True), (15, 18, False), (15, 20, True)]
    assert [stages.source(step) for step in (10, 15, 18, 20)] == [10, 15, 15, 20]
    assert stages.starts == {10, 15}
    assert Stages((10, 15), None).source(15) == 15
    assert stages.verdicts(17)[-1].end == 15


STAGED = ("dataset.name=gallery", *CHOSEN, "train.steps=8", "train.learning_rate=0.01")


def test_a_stage_that_does_harm_is_rolled_back_to_the_weights_before_it(train, recipe, gallery):
    """Its rate destroys; the last stage begins from the first's end, as if the second had not been."""
    outcome = train(recipe(*STAGED, "train.stages=['4 at 1', '2 at 1e-9']"))
    run = RunFolder(gallery.run("short"))
    verdicts = outcome.report["stages"]
    assert (verdicts[0]["end"], verdicts[0]["kept"]) == (12, False)
    assert "stage 2, to step 12, is rolled back to step 8" in run.log_tail()
    first, spoilt, last = (saved(run.path, step)["state_dict"] for step in (8, 12, 14))
    for name, weight in first.items():
        assert (spoilt[name] - weight).abs().max() > 0.1
        assert (last[name] - weight).abs().max() < 1e-6
    kept = {row["step"]: row["stage/kept"] for row in run.metrics() if "stage/kept" in row}
    assert kept == {12: 0.0}
    assert (outcome.report["steps"], len([row for row in run.metrics() if "loss" in row])) == (14, 14)


def test_stages_go_on_exactly_wherever_they_are_stopped(train, recipe, gallery, monkeypatch):
    options = (*STAGED, "train.stages=['4 at 1', '4 at 1e-3']", "train.ema_decay=0.9")
    straight = train(recipe(*options))

    class Killed(Exception):
        pass

    def dies_at(step, original):
        def look(callback, trainer, *rest):
            if trainer.global_step == step:
                raise Killed
            original(callback, trainer, *rest)

        return look

    for callback, step in ((Validation, 8), (StageGate, 12), (Validation, 16)):
        monkeypatch.setattr(callback, "_look", dies_at(step, callback._look))
        with pytest.raises(Exception, match="Killed"):
            train(recipe("name=broken", *options))
        monkeypatch.undo()
    resumed = train(recipe("name=broken", *options))
    for part in ("state_dict", "optimizer_states", "average"):
        assert_same(saved(gallery.run("short"), 16)[part], saved(gallery.run("broken"), 16)[part], part)
    files = [lora_file.read(Path(outcome.made["lora"])).tensors for outcome in (straight, resumed)]
    assert_same(*files)
    assert straight.report["stages"] == resumed.report["stages"]


def test_without_held_out_pictures_every_stage_is_kept(train, recipe, home):
    outcome = train(recipe("train.steps=3", "train.stages=['3 at 1e-3']", "sample.prompts=[]"))
    assert outcome.report["steps"] == 6
    assert "stages" not in outcome.report
    rates = [row["learning_rate"] for row in RunFolder(home.run("short")).metrics()]
    assert rates == [1e-3] * 6
    # A new stage has a new optimizer: its first step is Adam's first, of one learning rate's size.
    before, after = (saved(home.run("short"), step)["optimizer_states"][0]["state"][0] for step in (3, 6))
    assert (before["step"], after["step"]) == (3, 3)
