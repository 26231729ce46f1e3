"""The command with several devices: on a CPU, as so many processes, started by Lightning and by torchrun."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from lora_lightning.__main__ import main
from lora_lightning.errors import InputError
from lora_lightning.runs import gpu, queue
from lora_lightning.runs.files import Lock
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.reporter import Reporter
from lora_lightning.train import ranks
from lora_lightning.train.checkpoints import newest

ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
STEPS = 40


def command(home, *words, launcher=()):
    line = [sys.executable, *launcher, "-m", "lora_lightning", *words, "--home", str(home.home), "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def prepared(home, recipe):
    """A recipe for two processes in a file, and the run it will make."""
    path = home.home / "recipe.yaml"
    path.write_text(
        recipe(
            "train.devices=2", f"train.steps={STEPS}", "train.checkpoint_every=10", "train.sample_every=20",
            "dataset.resolutions=[32]",
        ).to_yaml()
    )  # fmt: skip
    return path, RunFolder(home.run("short"))


def helper_at_work(process, run):
    """The process that helps, once steps are made."""
    deadline = time.monotonic() + 200
    while True:
        assert process.poll() is None, process.communicate()[1][-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
        children = psutil.Process(process.pid).children()
        helpers = [child for child in children if "lora_lightning" in " ".join(child.cmdline())]
        state = run.read_state()
        if helpers and state.get("phase") == "training" and state.get("done", 0) >= 1:
            return helpers[0]


def gone(process):
    with suppress(psutil.NoSuchProcess):
        process.wait(timeout=30)
    return not process.is_running()


def test_a_stop_asked_of_the_helper_and_a_resume_under_torchrun(home, recipe):
    path, run = prepared(home, recipe)
    process = command(home, "train", str(path))
    try:
        helper = helper_at_work(process, run)
        helper.send_signal(signal.SIGTERM)
        told, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 143, errors[-4000:]
    assert json.loads(told.splitlines()[-1])["error"]["kind"] == "Stopped"
    assert run.status().state == "stopped"
    step = newest(run.checkpoints).step
    assert 1 <= step < STEPS
    assert gone(helper)

    done = command(home, "runs", "resume", "short", launcher=TORCHRUN)
    told, errors = done.communicate(timeout=240)
    assert done.returncode == 0, errors[-4000:]
    (outcome,) = [json.loads(line) for line in told.splitlines() if line.startswith("{")]  # of the main process alone
    assert outcome["report"]["steps"] == STEPS
    assert outcome["report"]["steps_per_picture"] == pytest.approx(STEPS * 2 / 3, abs=0.01)
    assert Path(outcome["made"]["lora"]).is_file()
    assert [row["step"] for row in run.metrics()] == list(range(1, STEPS + 1))
    assert {path.name for path in run.samples.glob("*-0.png")} == {f"{step:07d}-0.png" for step in (0, 20, STEPS)}
    assert run.status().state == "completed"


@pytest.mark.slow
def test_when_one_process_is_killed_none_is_left(home, recipe):
    path, run = prepared(home, recipe)
    process = command(home, "train", str(path))
    helper = helper_at_work(process, run)
    process.kill()
    process.communicate()
    assert gone(helper)
    assert run.status().state == "interrupted"
    process = command(home, "runs", "resume", "short")
    helper_at_work(process, run).kill()
    process.communicate(timeout=120)  # Lightning looks every few seconds
    assert process.returncode == -signal.SIGKILL
    assert run.status().state == "interrupted"


def test_what_processes_do_not_share_is_refused(monkeypatch, workspace, capsys):
    monkeypatch.setenv("RANK", "1")
    assert main(["caption", "rehearsal", "--home", str(workspace.home)]) == 2
    assert "caption is not shared among processes" in capsys.readouterr().err


@pytest.fixture
def three_gpus(monkeypatch):
    cards = [gpu.Gpu(index, "Card", 24_000, 0, 0, 0, 0.0) for index in range(3)]
    monkeypatch.setattr(gpu, "gpus", lambda: cards)


def test_so_many_devices_are_taken_as_are_asked_for_or_none(three_gpus, workspace, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu.tempfile, "gettempdir", lambda: str(tmp_path))
    reporter = Reporter(RunFolder(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    first, _, third = gpu.devices(workspace)
    busy = Lock(first.lock_path)
    assert busy.acquire()
    taken = queue.wait_for_devices(workspace, reporter, 2)
    assert [device.name for device, _ in taken] == ["cuda-1", "cuda-2"]
    assert queue._take_free(gpu.devices(workspace), 2, "other") == []
    for _, lock in taken:
        lock.release()
    assert queue._take_free(gpu.devices(workspace), 3, "other") == []
    assert not third.holder()  # those that could be had are given back
    busy.release()
    assert len(queue.wait_for_devices(workspace, reporter, "auto")) == 3
    with pytest.raises(InputError, match="4 GPUs are asked for, and there are 3"):
        queue.wait_for_devices(workspace, reporter, 4)


def test_another_number_of_processes_than_the_recipe_says_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match=r"4 processes were started, but train.devices=1 .* need 1") as caught:
        ranks.join(1, 1, tmp_path)
    assert "train.devices=4" in caught.value.hint
    with pytest.raises(InputError, match=r"train.num_nodes=2 need 6"):
        ranks.join(3, 2, tmp_path)
