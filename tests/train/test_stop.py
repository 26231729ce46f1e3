"""SIGTERM at any moment: what exists is saved, the process says it stopped, and a resume goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from lora_lightning.errors import Stopped
from lora_lightning.runs.callback import Report
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.reporter import Reporter
from lora_lightning.train.checkpoints import newest
from lora_lightning.workspace import Workspace

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")

PHASES = {
    "caching latents": ["dataset.resolutions=[" + ",".join(str(side) for side in range(64, 960, 16)) + "]"],
    "training": ["train.steps=100000"],
    "drawing samples": ["train.sample_every=2", "sample.steps=200"],
}


def at_work(run, phase):
    """In the phase, with something done there."""
    state = run.read_state()
    begun = run.checkpoints.is_dir() if phase == "drawing samples" else state.get("done", 0) > 2
    return state.get("phase") == phase and begun


def start(homes, recipe):
    """A process for each phase; returns the worker that started them and their numbers."""
    arguments = []
    for phase, home in homes.items():
        path = home.home / "recipe.yaml"
        path.write_text(recipe(*PHASES[phase]).to_yaml())
        arguments += [str(home.home), str(path)]
    worker = Path(__file__).with_name("worker.py")
    process = subprocess.Popen(
        [sys.executable, str(worker), *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    return process, dict(zip(homes, json.loads(process.stdout.readline()), strict=True))


def stop_each(processes, runs):
    """Send SIGTERM to each process once it is at work in its phase."""
    waiting, deadline = dict(processes), time.monotonic() + 120
    while waiting:
        assert time.monotonic() < deadline, f"never came to {sorted(waiting)}"
        for phase, number in list(waiting.items()):
            if at_work(runs[phase], phase):
                os.kill(number, signal.SIGTERM)
                del waiting[phase]
        time.sleep(0.01)


def test_sigterm_in_each_phase_is_a_stop_that_can_be_resumed(home, recipe, train, tmp_path):
    homes = {phase: Workspace.find(tmp_path / phase.replace(" ", "-")) for phase in PHASES}
    for each in homes.values():
        each.home.mkdir()
        each.datasets.symlink_to(home.datasets)
    runs = {phase: RunFolder(each.run("short")) for phase, each in homes.items()}
    worker, processes = start(homes, recipe)
    try:
        stop_each(processes, runs)
        codes = json.loads(worker.communicate(timeout=60)[0])
    finally:
        worker.kill()
    assert codes == [143, 143, 143]
    assert {run.status().state for run in runs.values()} == {"stopped"}
    assert newest(runs["caching latents"].checkpoints) is None
    assert newest(runs["training"].checkpoints).step == runs["training"].read_state()["done"] >= 3
    assert newest(runs["drawing samples"].checkpoints).step == 2  # saved before it was drawn

    outcome = train(recipe("train.sample_every=2"), homes["drawing samples"])
    assert outcome.report["steps"] == 6
    assert runs["drawing samples"].status().state == "completed"


class Slow(LightningModule):
    """Predicts, and is sent SIGTERM while it does."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def predict_step(self, batch, batch_idx):
        self.seen.append(batch_idx)
        if batch_idx == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_predict_ends_after_the_batch_at_hand(tmp_path):
    reporter = Reporter(RunFolder(tmp_path))
    report = Report(reporter, "captioning", total=40, done=10)
    module = Slow()
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, callbacks=[report]
    )
    with reporter.listening():
        ours = signal.getsignal(signal.SIGTERM)
        with pytest.raises(Stopped):
            trainer.predict(module, DataLoader(torch.arange(30), batch_size=3), return_predictions=False)
        assert signal.getsignal(signal.SIGTERM) is ours
    assert module.seen == [0, 1, 2]
    state = reporter.run.read_state()
    assert (state["phase"], state["done"], state["total"]) == ("captioning", 10 + 9, 40)
