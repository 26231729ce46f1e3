"""What goes wrong while training costs as little as possible, and is named."""

import errno
import json
import os
import threading
import time
from collections import Counter, namedtuple

import pytest
import torch

from lora_lightning.errors import Diverged, OutOfMemory, Stopped
from lora_lightning.models.fast.plan import Plan
from lora_lightning.models.memory import Setting
from lora_lightning.runs import space
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.reporter import Reporter
from lora_lightning.train.callbacks.guard import Guard
from lora_lightning.train.callbacks.pictures import PictureLosses, rows
from lora_lightning.train.checkpoints import newest
from lora_lightning.train.config import TrainConfig
from lora_lightning.train.datamodule import Batches
from lora_lightning.train.module import LoraTraining
from lora_lightning.train.plan import relief
from lora_lightning.train.timesteps import Timesteps
from tests.train.toy import Toy, altered, assert_same, saved

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")


@pytest.fixture
def spoilt(toy, monkeypatch):
    """Trains with a loss that is no number in some forward passes, counted from 1."""

    def train(folder, *passes, value=float("nan"), **options):
        module = toy.module(ema_decay=0.9)
        original, calls = module.losses, []

        def losses(batch):
            calls.append(batch.items)
            found = original(batch)
            return found._replace(mean=found.mean * value) if len(calls) in passes else found

        monkeypatch.setattr(module, "losses", losses)
        also = [lambda _report: Guard(lambda item: toy.pictures[item].file)]
        toy.fit(folder, also=also, module=module, **options)

    return train


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_without_a_finite_gradient_changes_nothing(spoilt, tmp_path, caplog, value):
    spoilt(tmp_path, 3, 5, value=value, steps=6)
    for skipped in (3, 5):
        before, after = saved(tmp_path, skipped - 1), saved(tmp_path, skipped)
        for part in ("state_dict", "average"):
            assert_same(before[part], after[part], part)
        assert_same(before["optimizer_states"][0]["state"], after["optimizer_states"][0]["state"])
        assert f"step {skipped} was skipped" in caplog.text
    before, after = saved(tmp_path, 5)["state_dict"], saved(tmp_path, 6)["state_dict"]
    assert not any(torch.equal(before[name], after[name]) for name in before)
    losses = {row["step"]: row.get("loss") for row in RunFolder(tmp_path).metrics()}
    assert [step for step, loss in losses.items() if loss is None] == [3, 5]


def test_one_spoilt_pass_of_an_accumulated_step_spoils_the_step(spoilt, tmp_path):
    spoilt(tmp_path, 4, steps=3, accumulate=2)
    assert_same(saved(tmp_path, 1)["state_dict"], saved(tmp_path, 2)["state_dict"])


def test_the_third_ends_it_names_the_pictures_and_leaves_the_last_checkpoint(spoilt, tmp_path, toy):
    with pytest.raises(Diverged, match="3 steps, the last of them step 7") as caught:
        spoilt(tmp_path, 2, 4, 7, steps=10)
    named = caught.value.message.split("(")[1].rstrip(")").split(", ")
    assert 1 <= len(named) <= 2
    assert set(named) <= {item.file for item in toy.pictures}
    assert "learning_rate" in caught.value.hint
    checkpoint = newest(RunFolder(tmp_path).checkpoints)
    assert checkpoint.step == 6
    assert all(weight.isfinite().all() for weight in saved(tmp_path, 6)["state_dict"].values())


def test_skipped_steps_are_counted_across_a_resume(spoilt, tmp_path):
    spoilt(tmp_path, 2, 3, steps=4)
    with pytest.raises(Diverged, match="step 6"):
        spoilt(tmp_path, 2, steps=9)  # the second pass of the resumed run


def test_out_of_memory_names_what_would_help_and_the_run_goes_on_later(train, recipe, home, monkeypatch):
    original, calls = LoraTraining.losses, []

    def losses(module, batch):
        calls.append(1)
        if len(calls) == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nAnd more.")
        return original(module, batch)

    monkeypatch.setattr(LoraTraining, "losses", losses)
    wanted = recipe("train.batch_size=2", "train.accumulate=2", "train.checkpoint_every=1")
    with pytest.raises(OutOfMemory, match=r"Tried to allocate 20.00 MiB\.$") as caught:
        train(wanted)
    assert "train.batch_size=1 train.accumulate=4" in caught.value.hint
    assert "train.gradient_checkpointing=true" in caught.value.hint
    assert RunFolder(home.run("short")).status().state == "failed"
    assert newest(RunFolder(home.run("short")).checkpoints).step == 2
    assert train(wanted).report["steps"] == 6


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"batch_size": 4}, "train.batch_size=1 train.accumulate=8"),
        ({"setting": Setting("nf4")}, "train.gradient_checkpointing=true"),
        ({"optimizer": "adamw"}, "train.optimizer=adamw8bit"),
        ({"setting": Setting(plan=Plan(bare=4))}, "model.low_vram=true"),
        ({"resolutions": (512, 1024)}, "dataset.resolutions=[512]"),
        ({"resolutions": (256,)}, "lora.rank=8"),
    ],
)
def test_what_helps_depends_on_what_is_set(changes, first):
    setting = changes.pop("setting", Setting("nf4", plan=Plan(bare=4)))
    resolutions = changes.pop("resolutions", (512,))
    assert relief(TrainConfig(accumulate=2, **changes), resolutions, setting)[0] == first


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(space, "POLL_SECONDS", 0.01)


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_pauses_until_there_is_space(toy, tmp_path, quick, monkeypatch):
    """The third checkpoint cannot be synced four times; every later file can."""
    original, failures, seen = os.fsync, [], []
    run = RunFolder(tmp_path)

    def fsync(handle):
        name = os.readlink(f"/proc/self/fd/{handle}")
        if "0000003.ckpt" in name and len(failures) < 4:
            failures.append(name)
            full()
        seen.append((run.read_state().get("state"), run.read_state().get("message")))
        return original(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    toy.fit(tmp_path, steps=4)
    monkeypatch.undo()
    toy.fit(tmp_path.parent / "straight", steps=4)
    assert len(failures) == 4
    assert ("paused", "the disk is full: the checkpoint of step 3 waits for space") in seen
    assert run.read_state()["state"] == "running"
    for step in (2, 3, 4):
        assert newest(run.checkpoints).step == 4
        assert_same(saved(tmp_path, step)["state_dict"], saved(tmp_path.parent / "straight", step)["state_dict"])
    assert not list(run.checkpoints.glob(".*.tmp"))


def test_it_waits_before_the_disk_is_quite_full(tmp_path, quick, monkeypatch):
    usage, left = namedtuple("usage", "total used free"), [10 << 20, 20 << 20, 900 << 20]
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(0, 0, left[0] if len(left) == 1 else left.pop(0)))
    reporter = Reporter(RunFolder(tmp_path))
    space.wait_for_space(reporter)
    assert left == [900 << 20]
    assert reporter.run.read_state()["state"] == "running"


def test_a_paused_run_can_be_stopped(tmp_path, quick):
    reporter = Reporter(RunFolder(tmp_path))

    def stop():
        while reporter.run.read_state().get("state") != "paused":
            time.sleep(0.01)
        reporter.run.request("STOP")

    asking = threading.Thread(target=stop)
    asking.start()
    with pytest.raises(Stopped):
        space.when_there_is_space(reporter, "it", full)
    asking.join()


def test_another_error_is_not_waited_for(tmp_path):
    def broken():
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        space.when_there_is_space(Reporter(RunFolder(tmp_path)), "it", broken)


def test_what_each_picture_costs_by_hand():
    sums = {
        "a.png": {"detail": [2, 2.0], "layout": [1, 4.0]},
        "b.png": {"detail": [2, 6.0]},
    }  # detail: 2 on average, layout: 4
    assert rows(sums) == [
        {"file": "b.png", "seen": 2, "loss": 3.0, "relative": 1.5},
        {"file": "a.png", "seen": 3, "loss": 2.0, "relative": pytest.approx(2 / 3, abs=1e-4)},
    ]
    assert rows({}) == []


def test_the_odd_picture_costs_the_most(toy, tmp_path):
    """One picture's latents are six times as large; each is counted as often as it came, and a resume counts on."""
    pictures = list(toy.pictures)
    pictures[2] = altered(pictures[2], tmp_path / "cache", lambda tensor: 6 * tensor)
    stranger = Toy(toy.family, pictures)

    for folder, parts in ((tmp_path / "straight", (12,)), (tmp_path / "parted", (5, 12))):
        also = [lambda _, at=folder: PictureLosses(at / "pictures.jsonl", lambda item: pictures[item].file)]
        for steps in parts:
            stranger.fit(folder, also=also, steps=steps)
    texts = [(tmp_path / name / "pictures.jsonl").read_text() for name in ("straight", "parted")]
    assert texts[0] == texts[1]
    found = [json.loads(line) for line in texts[0].splitlines()]
    assert found[0]["file"] == pictures[2].file
    assert found[0]["relative"] > 2 * found[1]["relative"]
    batches = Batches(pictures, batch_size=2, seed=5, timesteps=Timesteps())
    came = Counter(pictures[item].file for k in range(12) for item in batches.members(k))
    assert {row["file"]: row["seen"] for row in found} == came
