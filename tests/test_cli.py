"""The command line as a person or a script uses it: real processes, real files, the tiny models."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from safetensors import safe_open

from lora_lightning.verbs import VERBS

MINI = [
    "dataset.resolutions=[64]", "sample.width=64", "sample.height=64", "sample.steps=2", "lora.rank=4",
    "train.optimizer=adamw", "train.gradient_checkpointing=false", "generate.width=64", "generate.height=64",
    "generate.steps=2", "caption.max_tokens=8",
]  # fmt: skip


class Cli:
    """Runs commands in one workspace."""

    def __init__(self, home):
        self.home = home

    def __call__(self, *words, expect=0, **environment):
        done = subprocess.run(
            [sys.executable, "-m", "lora_lightning", *map(str, words), "--home", str(self.home), "--json"],
            capture_output=True,
            text=True,
            timeout=240,
            env=os.environ | environment,
            check=False,
        )
        assert done.returncode == expect, done.stderr[-3000:]
        assert "Traceback" not in done.stderr
        answer = json.loads(done.stdout.splitlines()[-1])
        assert answer["ok"] is (expect == 0)
        assert answer["verb"] == words[0]
        return answer


@pytest.fixture
def cli(tmp_path):
    return Cli(tmp_path / "home")


@pytest.fixture
def photo_zip(tmp_path, photos):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for photo in photos:
            archive.write(photo, photo.name)
        archive.writestr("broken.png", b"\x89PNG\r\n\x1a\nnot really")
    return path


@pytest.fixture
def mine(tmp_path, tiny_flux, tiny_captioner):
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"name: mine\ntrigger: ZXQ\nmodel: {{base: {tiny_flux}}}\ndataset: {{name: pictures}}\n"
        f"caption: {{captioner: {tiny_captioner}}}\n"
        "train: {steps: 6, learning_rate: 1.0e-2, checkpoint_every: 3, sample_every: 3}\n"
        "sample: {prompts: ['a cat, ZXQ']}\n"
        "generate: {prompts: ['a cat, ZXQ <lora:mine:0.8>', 'a cat']}\n"
    )
    return path


def test_the_whole_workflow_on_the_command_line(cli, photo_zip, mine, tmp_path):
    imported = cli("import", "pictures", photo_zip)
    assert len(imported["report"]["accepted"]) == 14
    assert [row["file"] for row in imported["report"]["rejected"]] == ["broken.png"]
    assert os.path.isabs(imported["made"]["dataset"])

    checked = cli("check", mine, *MINI)
    assert checked["report"]["blockers"] == []
    assert any("caption" in row["message"] for row in checked["report"]["warnings"])

    assert cli("caption", mine, *MINI)["report"]["captioned"] == 14

    trained = cli("train", mine, *MINI)
    assert trained["report"]["steps"] == 6
    assert trained["report"]["steps_per_second"] > 0
    assert {"final_loss", "peak_memory_mib"} <= set(trained["report"])
    lora = trained["made"]["lora"]
    with safe_open(lora, "pt") as file:
        assert all(key.startswith("transformer.") and ".lora_" in key for key in file.keys())  # noqa: SIM118
        assert file.metadata()["ss_output_name"] == "mine"
    card = os.path.join(os.path.dirname(lora), "README.md")
    assert "ZXQ" in Path(card).read_text()

    generated = cli("generate", mine, *MINI)
    assert len(generated["made"]["images"]) == 2
    assert all(os.path.getsize(path) for path in generated["made"]["images"])
    assert cli("generate", mine, *MINI)["made"]["run"].endswith("mine.generate-2")

    exported = cli("export", "pictures", "--format", "seed", "--output", tmp_path / "out")
    assert {os.path.basename(path) for path in exported["made"]["files"]} == {
        "pictures_captions.txt",
        "pictures_captions.json",
        "pictures_processed_images.zip",
    }

    names = {run["name"]: run["state"] for run in cli("runs")["report"]["runs"]}
    assert names == dict.fromkeys(["mine.caption", "mine", "mine.generate", "mine.generate-2"], "completed")
    taken = cli("train", mine, *MINI, expect=2)
    assert "mine" in taken["error"]["message"]
    assert cli("runs", "clone", "mine")["made"]["run"].endswith("mine-2")
    assert cli("runs", "resume", "mine", expect=2)["error"]["message"] == "run 'mine' is completed"
    cli("runs", "delete", "mine")
    assert cli("runs", "show", "mine", expect=2)["error"]["kind"] == "NameProblem"


def test_a_wrong_recipe_takes_no_name_and_lists_everything(cli, photo_zip, mine):
    cli("import", "pictures", photo_zip)
    wrong = cli("train", mine, "train.stpes=4", "lora.rank=0", "name=../x", expect=2)
    assert {problem["where"] for problem in wrong["error"]["problems"]} == {"train.stpes", "lora.rank", "name"}
    absent = cli("train", mine, "model.base=/absent/model", "dataset.name=nothing", expect=2)
    assert {problem["where"] for problem in absent["error"]["problems"]} == {"model.base", "dataset.name"}
    both = cli("check", mine, "train.steps=0", "dataset.name=nothing", expect=2)
    assert {problem["where"] for problem in both["report"]["blockers"]} == {"train.steps", "dataset.name"}
    assert cli("runs")["report"]["runs"] == []


WRONG = """
import x /absent
import ../x .
import x
export x
export x --format sede --output y
caption style
train nope
train style --nope
publish style
runs stop nope
runs dance
dance
"""


@pytest.mark.parametrize("words", WRONG.split("\n")[1:-1])
def test_wrong_words_exit_2_with_a_message_and_a_way_out(cli, words):
    error = cli(*words.split(), expect=2)["error"]
    assert error["message"]
    assert error["hint"]


def test_bad_archives_exit_2_and_leave_nothing(cli, tmp_path):
    empty = tmp_path / "empty.zip"
    zipfile.ZipFile(empty, "w").close()
    text = tmp_path / "text.zip"
    with zipfile.ZipFile(text, "w") as archive:
        archive.writestr("notes.md", "hello")
    fake = tmp_path / "fake.zip"
    fake.write_bytes(b"this is no archive")
    for path in (empty, text, fake):
        assert path.name in cli("import", "pictures", path, expect=2)["error"]["message"]
    assert not (cli.home / "datasets" / "pictures").exists()


def test_help_names_every_verb_and_each_verb_has_its_own():
    def say(*words):
        return subprocess.run(
            [sys.executable, "-m", "lora_lightning", *words], capture_output=True, text=True, check=True
        )

    overview = say("--help").stdout
    for verb in VERBS:
        assert f"  {verb} " in overview
    for verb in ("train", "export", "runs"):
        help_ = say(verb, "--help").stdout
        assert "--home" in help_
        assert "--json" in help_


def test_doctor_gives_a_fix_for_everything_it_finds_wrong(cli):
    findings = cli("doctor")["report"]["findings"]
    assert {"Python", "GPU", "Memory", "Disk", "Token", "torch", "Model dev"} <= {
        finding["name"] for finding in findings
    }
    assert all(finding["fix"] for finding in findings if not finding["ok"])
