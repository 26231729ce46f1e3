import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lora_lightning.errors import InputError, JobError, NameProblem, Stopped
from lora_lightning.runs import launch, queue
from lora_lightning.runs.job import perform, reserve
from lora_lightning.runs.reporter import Outcome, Pace, Reporter

WORKER = Path(__file__).with_name("worker.py")


def wait(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def command(workspace, run, mode="count"):
    return [sys.executable, str(WORKER), str(run.path), str(workspace.home), mode]


def work(workspace, run, mode="count"):
    with (run.path / "stderr.txt").open("w") as stderr:
        return subprocess.Popen(command(workspace, run, mode), stderr=stderr)


def supervised(workspace, run, mode="count"):
    launch._detach(run, [*command(workspace, run, mode)])


@pytest.fixture
def run(workspace):
    return reserve(workspace, "train", "counting", "name: counting\n")


def test_work_that_ends_is_completed_only_while_its_result_exists(workspace, run):
    assert run.status().state == "queued"
    made = run.path / "made.txt"

    def make(reporter):
        assert run.lock.held()
        reporter.phase("making", total=1)
        made.write_text("1")
        reporter.advance(1)
        return Outcome({"files": [str(made)]}, {"steps": 1})

    assert perform(workspace, run, make).report == {"steps": 1}
    assert run.status().state == "completed"
    assert run.result()["made"] == {"files": [str(made)]}
    assert not run.lock.held()
    made.unlink()
    assert run.status().state == "failed"
    assert "made.txt" in run.status().message


def test_a_failure_is_named_and_its_traceback_goes_to_the_log(workspace, run, capsys):
    def fail(reporter):
        raise ValueError("the reason")

    with pytest.raises(JobError, match="the reason"):
        perform(workspace, run, fail)
    assert run.status().state == "failed"
    assert "the reason" in run.status().message
    assert "Traceback" in run.log_path.read_text()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_between_steps_with_exit_code_143_and_the_run_goes_on_later(workspace, run, number):
    worker = work(workspace, run)
    wait(lambda: run.status().done > 3)
    worker.send_signal(number)
    assert worker.wait(10) == 143
    status = run.status()
    assert status.state == "stopped"
    assert "resume" in status.hint
    assert perform(workspace, run, lambda reporter: Outcome()).made == {}
    assert run.status().state == "completed"


def test_a_stop_request_is_seen_and_struck_off(workspace, run):
    worker = work(workspace, run)
    wait(lambda: run.status().done > 3)
    launch.stop(run)
    assert run.status().state in ("stopping", "stopped")
    assert worker.wait(10) == 143
    assert run.status().state == "stopped"
    assert not run.requested("STOP")


def test_a_killed_worker_shows_as_interrupted(workspace, run):
    worker = work(workspace, run)
    wait(lambda: run.status().done > 3)
    worker.kill()
    worker.wait(10)
    assert run.status().state == "interrupted"
    launch.check_resumable(run)


def test_the_supervisor_records_what_a_killed_job_could_not(workspace, run):
    supervised(workspace, run)
    wait(lambda: run.status().done > 3)
    assert run.status().state == "running"
    launch.force_stop(run)
    wait(lambda: run.read_state().get("exit_code") == -9)
    assert run.status().state == "interrupted"
    assert "SIGKILL" in run.status().message


def test_the_supervisor_records_an_exit_that_said_nothing(workspace, run):
    supervised(workspace, run, "exit")
    wait(lambda: run.status().state == "failed")
    assert run.status().state == "failed"


def test_a_dead_supervisor_takes_its_job_down_gently(workspace, run):
    supervised(workspace, run)
    wait(lambda: run.status().done > 3)
    os.kill(run.read_state()["supervisor_pid"], signal.SIGKILL)
    wait(lambda: run.status().state == "stopped")


def test_a_full_disk_is_told_as_such(workspace, run):
    worker = work(workspace, run, "raise")
    assert worker.wait(20) == 1
    assert "no space left" in (run.path / "stderr.txt").read_text()
    assert run.status().state == "failed"
    assert "Free some space" in run.status().hint


def test_two_processes_never_share_a_run(workspace, run):
    worker = work(workspace, run)
    wait(run.lock.held)
    with pytest.raises(NameProblem, match="is working already"):
        perform(workspace, run, lambda reporter: Outcome())
    worker.terminate()
    worker.wait(10)


def test_one_job_a_device_the_rest_wait_in_order(workspace, run):
    first = work(workspace, run)
    wait(lambda: run.status().state == "running")
    others = [reserve(workspace, "train", name, "name: x\n") for name in ("second", "third")]
    workers = []
    for other in others:
        workers.append(work(workspace, other, "fast"))
        wait(lambda other=other: "counting" in other.status().message)
    assert [status.name for status in queue.waiting(workspace)] == ["second", "third"]
    queue.move_to_front(workspace, "third")
    assert [status.name for status in queue.waiting(workspace)] == ["third", "second"]
    first.terminate()
    assert first.wait(10) == 143
    assert [worker.wait(30) for worker in workers] == [0, 0]
    second, third = (other.read_state() for other in others)
    assert third["ended"] < second["ended"]


def test_waiting_runs_change_places(workspace, run):
    for order, name in enumerate(("a", "b", "c")):
        waiting = reserve(workspace, "train", name, "name: x\n")
        waiting.write_state(queue_order=float(order + 1))
    run.write_state(state="stopped")

    def names():
        return [status.name for status in queue.waiting(workspace)]

    queue.move(workspace, "c", -1)
    assert names() == ["a", "c", "b"]
    queue.move(workspace, "a", 1)
    assert names() == ["c", "a", "b"]
    queue.move(workspace, "c", -1)
    queue.move(workspace, "b", 1)
    queue.move(workspace, "absent", 1)
    assert names() == ["c", "a", "b"]


def test_the_time_of_each_phase_adds_up_over_a_resume(workspace, run):
    for _ in range(2):
        reporter = Reporter(run)
        reporter.phase("loading")
        time.sleep(0.03)
        reporter.phase("training", total=1)
        reporter.advance(1)
    seconds = run.status().seconds
    assert list(seconds) == ["loading", "training"]
    assert seconds["loading"] >= 0.06


def test_going_on_starts_a_new_run_from_copies(workspace, run):
    run.checkpoints.mkdir()
    (run.checkpoints / "0000010.ckpt").write_bytes(b"weights")
    run.metrics_path.write_text('{"step": 10, "loss": 1}\n{"step": 20, "loss": 1}\n')
    (run.checkpoints / "0000020.ckpt").write_bytes(b"later")
    run.samples.mkdir()
    for step in (0, 10, 20):
        (run.samples / f"{step:07d}-0.png").write_bytes(b"")
    for name in ("dataset.jsonl", "identity.json"):
        (run.path / name).write_text("{}")
    longer = launch.go_on(workspace, run, "longer", "name: longer\n", 10)
    assert [path.name for path in longer.checkpoints.iterdir()] == ["0000010.ckpt"]
    assert sorted(path.name for path in longer.samples.iterdir()) == ["0000000-0.png", "0000010-0.png"]
    assert [row["step"] for row in longer.metrics()] == [10]
    assert (longer.path / "dataset.jsonl").is_file()
    assert not (longer.path / "identity.json").exists()
    assert longer.recipe_path.read_text() == "name: longer\n"
    assert longer.read_state()["created"] > run.read_state()["created"]
    wait(lambda: not longer.status().live, 60)
    with pytest.raises(InputError, match="no checkpoint of step 15"):
        launch.go_on(workspace, run, "other", "name: other\n", 15)
    assert not workspace.run("other").exists()


def test_a_waiting_run_can_be_stopped(workspace, run):
    first = work(workspace, run)
    wait(lambda: run.status().state == "running")
    other = reserve(workspace, "train", "second", "name: x\n")
    waiting = work(workspace, other)
    wait(lambda: "counting" in other.status().message)
    launch.stop(other)
    assert waiting.wait(10) == 143
    assert other.status().state == "stopped"
    first.terminate()
    first.wait(10)


def test_a_taken_name_names_the_choices(workspace, run):
    with pytest.raises(NameProblem) as caught:
        reserve(workspace, "train", "counting", "name: counting\n")
    assert "counting" in caught.value.message
    assert "clone" in caught.value.hint
    assert "name=" in caught.value.hint


def test_verbs_that_are_repeated_number_themselves(workspace):
    names = [reserve(workspace, "generate", "x", "name: x\n").name for _ in range(3)]
    assert names == ["x.generate", "x.generate-2", "x.generate-3"]


def test_a_stopped_caption_run_is_taken_up_again(workspace):
    first = reserve(workspace, "caption", "x", "name: x\n")

    def stop(reporter):
        raise Stopped("stopped")

    with pytest.raises(Stopped):
        perform(workspace, first, stop)
    assert reserve(workspace, "caption", "x", "name: x\n").name == first.name
    assert reserve(workspace, "caption", "x", "name: x\nseed: 1\n").name == "x.caption-2"


def test_the_log_tail_keeps_whole_lines_and_drops_overwritten_ones(run):
    run.log_path.write_text("first\n10%\r50%\r100%\nlast\n")
    assert run.log_tail() == "first\n100%\nlast\n"
    assert run.log_tail(limit_bytes=8) == "last\n"


def test_an_eta_appears_when_it_is_no_guess(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace()
    for done in range(1, 11):
        now[0] += 2.0
        pace.tick(done)
        if done < 5:
            assert pace.eta_seconds(100) is None
    assert pace.eta_seconds(100) == pytest.approx(180.0)
    now[0] += 500.0
    pace.rest()
    now[0] += 2.0
    pace.tick(11)
    assert pace.eta_seconds(100) == pytest.approx(178.0)


def test_the_supervisor_of_an_ended_attempt_leaves_the_next_one_alone(workspace, run):
    supervised(workspace, run)
    wait(lambda: run.status().done > 3)
    first = run.read_state()["supervisor_pid"]
    os.kill(first, signal.SIGSTOP)
    launch.stop(run)
    wait(lambda: run.status().state == "stopped")
    supervised(workspace, run)
    wait(lambda: run.status().state == "running")
    os.kill(first, signal.SIGCONT)
    time.sleep(0.5)
    assert run.status().state == "running"
    launch.stop(run)
    wait(lambda: run.status().state == "stopped")
