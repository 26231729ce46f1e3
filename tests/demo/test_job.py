"""The demo is one run made of runs: it shows their progress, stops with them, and goes on where it was."""

import threading
import time

import pytest
from PIL import Image

from lora_lightning import recipe, verbs
from lora_lightning.demo.job import PARTS, take
from lora_lightning.demo.sample import demo_recipe, sample
from lora_lightning.errors import Stopped
from lora_lightning.runs import launch
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.job import reserve


@pytest.fixture
def short(workspace):
    """The demo's own recipe with fewer steps and one object on the sheet."""
    values = demo_recipe(sample(), workspace).model_dump(mode="json")
    values["train"] |= {"steps": 3}
    for section in ("sample", "evaluate", "generate"):
        values[section] |= {"steps": 1, "prompts": values[section]["prompts"][:1]}
    values["evaluate"] |= {"weights": [1.0], "seeds": 1, "references": values["evaluate"]["references"][:1]}
    return recipe.parse(values)


def stop_when(run, phase):
    """Ask the demo to stop once a part has begun."""

    def watch():
        deadline = time.monotonic() + 120
        while phase not in run.status().phase and time.monotonic() < deadline:
            time.sleep(0.01)
        launch.stop(run)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_it_stops_between_steps_and_goes_on_to_the_end(workspace, short, capsys):
    run = reserve(workspace, "demo", short.name, short.to_yaml())
    watcher = stop_when(run, "train: ")
    with pytest.raises(Stopped, match="stopped on request") as stopped:
        take("demo", short, workspace, run)
    watcher.join()
    assert run.name in stopped.value.hint
    assert run.status().state == "stopped"
    assert RunFolder(workspace.run(f"{short.name}.caption")).status().state == "completed"
    captioned = workspace.run(f"{short.name}.caption") / "result.json"
    before = captioned.stat().st_mtime_ns

    outcome = take("demo", short, workspace, RunFolder.open(workspace, run.name))
    assert run.status().state == "completed"
    assert captioned.stat().st_mtime_ns == before, "a part that was done is not done again"
    states = {part: RunFolder(workspace.run(launch_name(short.name, part))).status().state for part in PARTS}
    assert states == dict.fromkeys(PARTS, "completed")
    assert "contact sheet: " in outcome.report["summary"]
    with Image.open(outcome.made["sheet"]) as sheet:
        assert sheet.width > 3 * 128
    assert len(workspace.dataset_names()) == 1
    assert capsys.readouterr().err.count("caching captions") <= 2, "each line is shown once, not by every run above"


def launch_name(name, part):
    """The run of a part, as `runs` lists it."""
    return name if part == "train" else f"{name}.{part}"


def test_the_verb_takes_only_what_the_dashboard_reserved(workspace, capsys):
    from lora_lightning.__main__ import main

    assert main(["demo", "my-pictures", "--home", str(workspace.home)]) == 2
    assert "brings its own pictures" in capsys.readouterr().err
    assert verbs.VERBS["demo"].minimum_words == 0
