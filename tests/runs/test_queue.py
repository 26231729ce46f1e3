"""The line for the devices, in real processes on two cards that only the driver's answers are missing of."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lora_lightning.errors import InputError
from lora_lightning.run_verbs import runs_
from lora_lightning.runs import gpu, queue
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.job import reserve

WORKER = Path(__file__).parent / "worker.py"
CARDS = [gpu.Gpu(index, "Card", 24_000, 0, 0, 0, 0.0) for index in range(2)]


def until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def begin(workspace, tmp_path, monkeypatch):
    """Start a job that counts, which may want one device; it is in line or at work when this returns."""
    monkeypatch.setattr(gpu, "gpus", lambda: CARDS)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(gpu.tempfile, "gettempdir", lambda: str(tmp_path))
    processes = []

    def begun(name: str, wanted: str = "") -> RunFolder:
        run = reserve(workspace, "train", name, "name: x")
        run.write_state(wanted=wanted)
        command = [sys.executable, str(WORKER), str(run.path), str(workspace.home), "two-gpus"]
        processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        until(lambda: run.status().queue_order or run.status().state == "running")
        return run

    yield begun
    for process in processes:
        process.kill()
        process.wait()


def working(run: RunFolder) -> bool:
    return run.status().state == "running" and (run.path / "sees.txt").is_file()


def test_each_device_has_its_own_line_and_none_stands_idle(begin, workspace):
    first, second = begin("first"), begin("second", "cuda-1")
    until(lambda: working(first) and working(second))
    assert [run.status().device for run in (first, second)] == ["cuda-0", "cuda-1"]
    assert [(run.path / "sees.txt").read_text() for run in (first, second)] == ["0", "1"]

    choosy, other = begin("choosy", "cuda-0"), begin("other")
    until(lambda: "; 1 in line before it" in other.status().message)
    assert [state.name for state in queue.rivals(queue.waiting(workspace), "choosy")] == ["choosy", "other"]
    second.request("STOP")
    until(lambda: working(other))  # it overtakes one that waits for the other device
    assert other.status().device == "cuda-1"
    assert choosy.status().state == "queued"

    other.request("STOP")
    until(lambda: not other.lock.held())
    time.sleep(4 * queue.POLL_SECONDS)
    assert choosy.status().state == "queued"  # a free device that it does not want
    queue.choose_device(workspace, "choosy", "cuda-1")
    until(lambda: working(choosy))
    assert (choosy.path / "sees.txt").read_text() == "1"


def test_a_device_is_chosen_by_a_word_of_the_command_line(begin, workspace, monkeypatch):
    run = reserve(workspace, "train", "mine", "name: x")

    class Words:
        words = ("queue", "mine", "cuda-1")

    runs_(Words, workspace, lambda _: None)
    assert run.status().wanted == "cuda-1"
    Words.words = ("queue", "mine", "any")
    runs_(Words, workspace, lambda _: None)
    assert run.status().wanted == ""
    with pytest.raises(InputError, match="there is no device 'cuda-7'"):
        queue.choose_device(workspace, "mine", "cuda-7")


def test_only_the_chosen_device_is_seen_while_a_recipe_is_checked(monkeypatch):
    class Driver:
        NVMLError = OSError
        nvmlInit = nvmlShutdown = staticmethod(lambda: None)
        nvmlDeviceGetCount = staticmethod(lambda: 3)
        nvmlDeviceGetHandleByIndex = staticmethod(lambda index: index)
        nvmlDeviceGetUUID = staticmethod(lambda index: f"GPU-{index}abc-def")

    monkeypatch.setattr(gpu, "pynvml", Driver)
    monkeypatch.setattr(gpu, "_read", lambda index: index)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu.gpus() == [0, 1, 2]
    with gpu.alone("cuda-2"):
        assert gpu.gpus() == [2]
    with gpu.alone(""):
        assert gpu.gpus() == [0, 1, 2]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1a, 2")
    assert gpu.gpus() == [1, 2]
