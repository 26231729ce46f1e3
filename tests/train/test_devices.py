"""The command with several devices: on a CPU, as so many processes, started by Lightning, by srun and by torchrun."""

import itertools
import json
import os
import random
import re
import signal
import socket
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
from lora_lightning.train import ranks, shards
from lora_lightning.train.checkpoints import newest, steps
from lora_lightning.workspace import Workspace

ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
STEPS = 40


def command(home, *words, launcher=(), **environment):
    line = [sys.executable, *launcher, "-m", "lora_lightning", *words, "--home", str(home.home), "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | environment
    return subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def prepared(home, recipe):
    """A recipe for two processes in a file, and the run it will make."""
    path = home.home / "recipe.yaml"
    path.write_text(
        recipe(
            "train.devices=2", f"train.steps={STEPS}", "train.checkpoint_every=10", f"train.sample_every={STEPS}",
            "dataset.resolutions=[32]",
        ).to_yaml()
    )  # fmt: skip
    return path, RunFolder(home.run("short"))


def srun(home, *words):
    """Two tasks of a step on one machine, as `srun` starts them."""
    job = next(job for job in itertools.count(random.randrange(1000, 8000)) if free(15000 + job))  # Lightning's port
    step = {
        "SLURM_JOB_ID": str(job), "SLURM_JOB_NAME": "train", "SLURM_JOB_NUM_NODES": "1", "SLURM_NNODES": "1",
        "SLURM_NODELIST": "127.0.0.1", "SLURM_NODEID": "0", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "0",
    }  # fmt: skip
    return [command(home, *words, **step, SLURM_PROCID=task, SLURM_LOCALID=task) for task in ("0", "1")]


def free(port):
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) != 0


def waited_for(done, process):
    deadline = time.monotonic() + 200
    while not (found := done()):
        assert process.poll() is None, process.communicate()[1][-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def helper_at_work(process, run):
    """The process that helps, once steps are made."""

    def helpers():
        state = run.read_state()
        at_work = state.get("phase") == "training" and state.get("done", 0) >= 1
        children = psutil.Process(process.pid).children() if at_work else []
        return [child for child in children if "lora_lightning" in " ".join(child.cmdline())]

    return waited_for(helpers, process)[0]


def gone(process):
    with suppress(psutil.NoSuchProcess):
        process.wait(timeout=30)
    return not process.is_running()


def test_stops_and_resumes_by_lightning_then_under_srun_and_torchrun_with_the_base_in_shards(home, recipe):
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
    first = newest(run.checkpoints).step
    assert 1 <= first < STEPS
    assert gone(helper)

    run.recipe_path.write_text(run.recipe_path.read_text().replace("strategy: ddp", "strategy: fsdp"))
    main_task, other_task = srun(home, "runs", "resume", "short")
    try:
        waited_for(lambda: max(steps(run.checkpoints)) > first, main_task)
        other_task.send_signal(signal.SIGTERM)
        told, errors = main_task.communicate(timeout=120)
        assert main_task.returncode == 143, errors[-4000:]
        told, errors = other_task.communicate(timeout=60)
        assert (other_task.returncode, told) == (0, ""), errors[-4000:]
    finally:
        main_task.kill()
        other_task.kill()
    assert first < newest(run.checkpoints).step < STEPS

    done = command(home, "runs", "resume", "short", launcher=TORCHRUN)
    told, errors = done.communicate(timeout=240)
    assert done.returncode == 0, errors[-4000:]
    (outcome,) = [json.loads(line) for line in told.splitlines() if line.startswith("{")]  # of the main process alone
    assert outcome["report"]["steps"] == STEPS
    assert outcome["report"]["steps_per_picture"] == pytest.approx(STEPS * 2 / 3, abs=0.01)
    assert Path(outcome["made"]["lora"]).is_file()
    assert Path(outcome["made"]["sheet"]).is_file()
    assert [row["step"] for row in run.metrics()] == list(range(1, STEPS + 1))
    assert {path.name for path in run.samples.glob("*-0.png")} == {f"{step:07d}-0.png" for step in (0, STEPS)}
    assert run.status().state == "completed"
    assert "could not be drawn" not in run.log_path.read_text()


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
    process.communicate(timeout=120)
    # In the middle of a step the connection breaks at once; else Lightning, which looks every few seconds, ends it.
    assert (process.returncode, run.status().state) in ((1, "failed"), (-signal.SIGKILL, "interrupted"))


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


@pytest.mark.parametrize(("quantize", "kind", "named"), [("nf4", "lora", "keeps it in nf4"), ("none", "dora", "DoRA")])
def test_a_base_that_cannot_be_shared_out_is_refused(quantize, kind, named):
    shards.check("none", "lora")
    with pytest.raises(InputError, match=named) as caught:
        shards.check(quantize, kind)
    assert "train.strategy=ddp" in caught.value.hint


def test_another_number_of_processes_than_the_recipe_says_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match=r"4 processes were started, but train.devices=1 .* need 1") as caught:
        ranks.join(1, 1, tmp_path)
    assert "train.devices=4" in caught.value.hint
    with pytest.raises(InputError, match=r"train.num_nodes=2 need 6"):
        ranks.join(3, 2, tmp_path)


def test_a_slurm_job_whose_tasks_were_not_started_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(InputError, match="its 2 tasks were not started") as caught:
        ranks.join(2, 1, tmp_path)
    assert "Put srun before the command" in caught.value.hint


def test_the_batch_script_in_the_docs_starts_as_many_tasks_as_its_recipe_needs(tmp_path):
    text = (ROOT / "docs" / "training.md").read_text()
    (script,) = re.findall(r"```bash\n(#!.*?)```", text, re.DOTALL)
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", script, re.MULTILINE))
    devices, num_nodes = re.search(r"`train.devices: (\d)` and `train.num_nodes: (\d)`", text).groups()
    assert (asked["ntasks-per-node"], asked["gres"], asked["nodes"]) == (devices, f"gpu:{devices}", num_nodes)

    (tmp_path / "srun").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path)}

    def started():
        return subprocess.run(
            ["bash", "-eu", "-c", script], env=environment, capture_output=True, text=True, check=True
        )

    assert started().stdout == "python -m lora_lightning train mycat.yaml\n"
    Workspace(tmp_path / "workspace").run("mycat").mkdir(parents=True)
    assert started().stdout == "python -m lora_lightning runs resume mycat\n"
