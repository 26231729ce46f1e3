"""Going on from a checkpoint gives, bit for bit, what an uninterrupted run gives."""

import os
import signal

import pytest
import torch
from lightning.pytorch import Callback

from lora_lightning.datasets.store import Dataset
from lora_lightning.models import lora
from lora_lightning.models.base import open_family
from lora_lightning.runs.callback import Report
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.reporter import Reporter
from lora_lightning.train.cache import Cache
from lora_lightning.train.callbacks.checkpoint import Checkpoints
from lora_lightning.train.checkpoints import AtomicCheckpointIO, newest, path_of
from lora_lightning.train.datamodule import BatchData, Batches
from lora_lightning.train.encode import encode_images, encode_texts
from lora_lightning.train.examples import freeze
from lora_lightning.train.fit import Rhythm, fit
from lora_lightning.train.module import LoraTraining
from lora_lightning.train.timesteps import Timesteps
from tests.train.toy import assert_same

STEPS = 8
pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def family(tiny_flux):
    return open_family(str(tiny_flux), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def items(imported, family, tmp_path_factory):
    """Two buckets at two resolutions."""
    folder = RunFolder(tmp_path_factory.mktemp("encoding"))
    reporter, cache = Reporter(folder), Cache(folder.path / "cache")
    dataset = Dataset.open(imported.dataset("pictures"))
    examples = freeze(dataset, "TOK", folder.path / "dataset.jsonl")
    texts = encode_texts([e.caption for e in examples], family=family, cache=cache, reporter=reporter)
    return encode_images(examples, dataset.images, (48, 64), texts, family=family, cache=cache, reporter=reporter)


class At(Callback):
    """Does something when a step is done."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            self.action()


class Killed(Exception):
    pass


@pytest.fixture
def train(family, items):
    """Fit in a folder, from its newest checkpoint; random numbers drawn elsewhere must not matter."""

    def run(folder, *callbacks, accumulate=1, optimizer="adamw", every=100, steps=STEPS):
        folder.mkdir(exist_ok=True)
        torch.manual_seed(len(list(folder.iterdir())))
        transformer = family.load_transformer()
        lora.inject(transformer, rank=64, alpha=32.0, targets=family.lora_targets["attention"], seed=0)
        module = LoraTraining(family, transformer, optimizer=optimizer, learning_rate=1e-2, max_gradient_norm=0.1)
        batches = Batches(items, batch_size=2, seed=5, timesteps=Timesteps())
        reporter = Reporter(RunFolder(folder))
        report = Report(reporter, "training", figures=module.figures)
        rhythm = Rhythm(steps, accumulate, "32-true")
        checkpoint = newest(reporter.run.checkpoints)
        reporter.run.forget_stop()
        fit(module, batches, rhythm, report, [*callbacks, Checkpoints(report, every)], checkpoint)
        return reporter

    return run


def final(folder):
    return AtomicCheckpointIO().load_checkpoint(path_of(RunFolder(folder).checkpoints, STEPS))


def assert_same_training(one, other):
    assert_same(final(one)["state_dict"], final(other)["state_dict"])
    assert_same(final(one)["optimizer_states"], final(other)["optimizer_states"])
    metrics = [[row | {"step": int(row["step"])} for row in RunFolder(folder).metrics()] for folder in (one, other)]
    assert metrics[0] == metrics[1]
    assert [row["step"] for row in metrics[0]] == list(range(1, STEPS + 1))


@pytest.mark.parametrize(("optimizer", "accumulate"), [("adamw", 1), ("adamw", 2), ("adamw8bit", 2)])
def test_stopped_and_resumed_any_number_of_times(train, tmp_path, optimizer, accumulate):
    options = {"accumulate": accumulate, "optimizer": optimizer}
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(straight, **options)
    for step in (1, 4, 6):
        reporter = train(stopped, At(step, lambda: RunFolder(stopped).request("STOP")), **options)
        assert reporter.stop_requested
        # The stop comes after the report has looked, so one more step is made.
        assert newest(RunFolder(stopped).checkpoints).step == step + 1
    train(stopped, **options)
    assert_same_training(straight, stopped)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_killed_and_resumed_from_the_last_checkpoint(train, tmp_path, accumulate):
    def kill():
        raise Killed

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    train(straight, accumulate=accumulate)
    with pytest.raises(Killed):
        train(killed, At(5, kill), accumulate=accumulate, every=3)
    assert newest(RunFolder(killed).checkpoints).step == 3
    train(killed, accumulate=accumulate, every=3)
    assert_same_training(straight, killed)


def test_a_signal_while_lightning_has_its_own_handler_is_a_stop_too(train, tmp_path, monkeypatch):
    """Lightning would register its own before it asks for the data."""
    original = BatchData.train_dataloader

    def signalled(data):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(data)

    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(straight)
    monkeypatch.setattr(BatchData, "train_dataloader", signalled)
    with Reporter(RunFolder(stopped)).listening():
        assert train(stopped).stop_requested
    monkeypatch.undo()
    assert newest(RunFolder(stopped).checkpoints).step == 1
    train(stopped)
    assert_same_training(straight, stopped)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_twice_and_resumed(train, tmp_path, number):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(straight)
    for step in (2, 5):
        with Reporter(RunFolder(stopped)).listening():
            train(stopped, At(step, lambda: os.kill(os.getpid(), number)))
        assert newest(RunFolder(stopped).checkpoints).step == step + 1
    train(stopped)
    assert_same_training(straight, stopped)


def test_a_damaged_checkpoint_costs_steps_but_not_exactness(train, tmp_path):
    straight, damaged = tmp_path / "straight", tmp_path / "damaged"
    train(straight)
    train(damaged, At(5, lambda: RunFolder(damaged).request("STOP")), every=2)
    last = newest(RunFolder(damaged).checkpoints)
    last.path.write_bytes(last.path.read_bytes()[:-1])
    assert newest(RunFolder(damaged).checkpoints).step == last.step - 2
    train(damaged)
    assert_same_training(straight, damaged)


def test_a_checkpoint_holds_only_what_is_trained(train, tmp_path, items):
    train(tmp_path / "run")
    checkpoint = final(tmp_path / "run")
    assert all("lora_" in name for name in checkpoint["state_dict"])
    moments = checkpoint["optimizer_states"][0]["state"]
    assert len(moments) == len(checkpoint["state_dict"])
    weights = sum(weight.nbytes for weight in checkpoint["state_dict"].values())
    size = path_of(RunFolder(tmp_path / "run").checkpoints, STEPS).stat().st_size
    assert size < 3.5 * weights  # the weights and their two moments


def test_the_last_two_are_kept_and_the_final_one(train, tmp_path):
    train(tmp_path / "run", every=1)
    assert sorted(path.stem for path in (tmp_path / "run" / "checkpoints").glob("*.ckpt")) == [
        "0000006", "0000007", "0000008",
    ]  # fmt: skip


def test_save_is_done_when_asked(train, tmp_path):
    train(tmp_path / "run", At(4, lambda: RunFolder(tmp_path / "run").request("SAVE")))
    assert [path.stem for path in sorted((tmp_path / "run" / "checkpoints").glob("*.ckpt"))] == ["0000005", "0000008"]
    assert not RunFolder(tmp_path / "run").requested("SAVE")


def test_nothing_is_trained_twice_when_all_is_done(train, tmp_path):
    train(tmp_path / "run")
    before = path_of(RunFolder(tmp_path / "run").checkpoints, STEPS).stat().st_mtime_ns
    train(tmp_path / "run")
    assert path_of(RunFolder(tmp_path / "run").checkpoints, STEPS).stat().st_mtime_ns == before
