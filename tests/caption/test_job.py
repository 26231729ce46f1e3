import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lora_lightning.caption.config import CaptionConfig
from lora_lightning.caption.module import Result
from lora_lightning.caption.writer import CaptionWriter
from lora_lightning.datasets import alternates
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import DatasetError, InputError, JobError, ModelError, Stopped
from lora_lightning.runs.folder import RunFolder

# Lightning 2.6 asks torch's LeafSpec in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")


def captions(dataset):
    return {picture.name: picture.caption for picture in dataset.pictures()}


def test_every_picture_gets_one_line_that_says_how_it_was_made(caption, dataset, tiny_captioner):
    outcome = caption(temperature=0.7)
    report = outcome.report
    assert (report["captioned"], report["skipped"], report["failed"]) == (5, 0, [])
    assert report["images_per_second"] > 0
    for picture in dataset.pictures():
        assert picture.caption.splitlines() == [picture.caption]
        assert picture.author == tiny_captioner.name
        (version,) = dataset.history(picture.id)
        assert version.details["temperature"] == 0.7
        assert version.details["model"] == tiny_captioner.name
        assert version.details["prompt"].startswith("Write")
    files = {Path(path).name: Path(path) for path in outcome.made["files"]}
    assert set(files) == {"photos_captions.txt", "photos_captions.json", "photos_processed_images.zip"}
    stored = json.loads(files["photos_captions.json"].read_text())["captions"]
    assert list(stored.values()) == [picture.caption for picture in dataset.pictures()]


def test_captions_depend_on_picture_and_seed_not_on_the_batch(caption, dataset):
    caption(batch_size=4, temperature=1.0)
    first = captions(dataset)
    for picture in dataset.pictures():
        dataset.write_caption(picture.id, "", author="human")
    caption(batch_size=1, temperature=1.0)
    assert captions(dataset) == first
    assert len(set(first.values())) == 5


@pytest.mark.parametrize("existing", ["keep", "replace_machine", "replace_all"])
def test_the_rule_for_existing_captions_decides_what_is_replaced(caption, dataset, tmp_path, existing):
    from lora_lightning.datasets.importing import import_sources
    from lora_lightning.workspace import Workspace

    human, imported, old, *new = dataset.pictures()
    dataset.write_caption(human.id, "typed by hand", author="human")
    sidecar = tmp_path / "captions.json"
    sidecar.write_text(json.dumps({imported.name: "from a file"}))
    import_sources(Workspace(dataset.folder.parents[1]), dataset.name, [sidecar])
    dataset.write_caption(old.id, "by another captioner", author="blip", details={"model": "blip"})

    report = caption(existing=existing).report

    kept = captions(dataset)
    replaced = {"keep": 0, "replace_machine": 1, "replace_all": 3}[existing]
    assert (kept[human.name] == "typed by hand") is (existing != "replace_all")
    assert (kept[imported.name] == "from a file") is (existing != "replace_all")
    assert (kept[old.name] == "by another captioner") is (existing == "keep")
    assert report["captioned"] == len(new) + replaced
    assert report["skipped"] == 3 - replaced
    assert dataset.history(human.id)[0].text == "typed by hand"


def test_replacing_leaves_what_would_come_out_the_same(caption, dataset):
    caption(temperature=0)
    assert caption(temperature=0, existing="replace_machine").report["captioned"] == 0
    assert caption(temperature=0, existing="replace_machine", max_tokens=5).report["captioned"] == 5
    assert [len(dataset.history(picture.id)) for picture in dataset.pictures()] == [2] * 5


def test_a_stop_ends_between_captions_and_the_next_run_does_the_rest(caption, dataset):
    def stop_after_the_first_caption(reporter):
        advance = reporter.advance

        def and_stop(done, **figures):
            advance(done, **figures)
            if done:
                reporter.run.request("STOP")

        reporter.advance = and_stop

    with pytest.raises(Stopped):
        caption(stop_after_the_first_caption)
    first = {picture.id: picture.caption for picture in dataset.pictures() if picture.caption}
    assert 0 < len(first) < 5
    dataset.write_caption(next(iter(first)), "put right by a person", author="human")

    report = caption().report

    assert (report["captioned"], report["skipped"]) == (5 - len(first), len(first))
    assert all(captions(dataset).values())
    assert [len(dataset.history(id)) for id in first] == [2] + [1] * (len(first) - 1)


def test_a_caption_typed_meanwhile_stays(dataset):
    seen = dataset.pictures()[0]
    dataset.write_caption(seen.id, "typed meanwhile", author="human")
    writer = CaptionWriter(dataset, "tiny", {}, lambda tally: None)
    writer.write([Result(seen, "by the machine")])
    assert dataset.picture(seen.id).caption == "typed meanwhile"
    assert writer.tally.captioned == 0


def test_a_picture_taken_out_meanwhile_is_reported(dataset):
    writer = CaptionWriter(dataset, "tiny", {}, lambda tally: None)
    gone = replace(dataset.pictures()[0], id=999)
    writer.write([Result(gone, "text")])
    assert writer.tally.failed == [
        {"file": gone.name, "id": 999, "reason": "dataset 'photos' has no picture number 999"}
    ]


def test_a_damaged_picture_is_reported_and_the_rest_is_done(caption, dataset):
    damaged = dataset.pictures()[1]
    dataset.path(damaged).write_bytes(b"\x89PNG\r\n\x1a\n no more")
    outcome = caption()
    assert outcome.report["captioned"] == 4
    (failed,) = outcome.report["failed"]
    assert failed["file"] == damaged.name
    assert "cannot be read" in failed["reason"]
    assert [name for name, text in captions(dataset).items() if not text] == [damaged.name]


def test_a_dataset_that_is_all_captioned_needs_no_model(caption, dataset):
    for picture in dataset.pictures():
        dataset.write_caption(picture.id, "done", author="human")
    outcome = caption(captioner="nobody/has-this-one")
    assert (outcome.report["captioned"], outcome.report["skipped"]) == (0, 5)
    assert len(outcome.made["files"]) == 3


def test_an_absent_dataset_is_named(caption):
    with pytest.raises(DatasetError, match="'photos'"):
        caption()


def test_an_absent_captioner_is_named_at_once(caption, dataset):
    started = time.monotonic()
    with pytest.raises(ModelError, match="nobody/has-this-one"):
        caption(captioner="nobody/has-this-one")
    assert time.monotonic() - started < 10


def kill_one_at_the_first_caption(dataset):
    """The process of this one that was started last, when it or another has written something."""
    while not any(picture.caption for picture in dataset.pictures()):
        time.sleep(0.01)
    children = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
    max(children, key=lambda child: child.create_time()).kill()


def test_processes_share_the_pictures_and_when_one_is_killed_the_rest_is_done_later(caption, dataset, workspace):
    same = {"temperature": 0.0, "max_tokens": 60}
    caption(**same)
    alone = captions(dataset)
    damaged = dataset.pictures()[1]
    dataset.path(damaged).write_bytes(b"no picture")
    for picture in dataset.pictures():
        dataset.write_caption(picture.id, "", author="human")
    killer = threading.Thread(target=kill_one_at_the_first_caption, args=[dataset])
    killer.start()
    with pytest.raises(JobError, match=r"one of the 2 processes .* was ended .SIGKILL") as caught:
        caption(**same, devices=2, batch_size=1)
    killer.join()
    assert "runs resume described.caption-2" in caught.value.hint
    left = [name for name, text in captions(dataset).items() if not text]
    assert damaged.name in left
    assert 2 <= len(left) <= 4

    report = caption(**same, devices=2, batch_size=1).report
    assert (report["captioned"], report["skipped"]) == (len(left) - 1, 5 - len(left))
    assert [failed["file"] for failed in report["failed"]] == [damaged.name]
    assert captions(dataset) == alone | {damaged.name: ""}
    run = RunFolder(workspace.run("described.caption-2"))
    assert len(list((run.path / "shares").glob("[01].json"))) == 2
    assert run.status().state == "completed"
    assert run.status().figures["images_per_second"] > 0


@pytest.mark.slow
def test_an_error_in_one_of_the_processes_is_told_as_it_is(caption, dataset, tmp_path, tiny_captioner):
    folder = shutil.copytree(tiny_captioner, tmp_path / "damaged")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be opened"):
        caption(captioner=str(folder), devices=2)


def test_the_speed_is_in_the_metrics_and_in_the_state(caption, dataset, workspace):
    caption(batch_size=1)
    run = RunFolder(workspace.run("described.caption"))
    steps = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5]
    assert steps[-1]["images_per_second"] > 0
    assert run.status().figures["images_per_second"] > 0


def test_pictures_are_chosen_by_number_or_by_a_filter_and_re_rolled_with_another_seed(caption, dataset):
    caption()
    first = captions(dataset)
    chosen = dataset.pictures()[1:3]
    again = {"existing": "replace_machine", "temperature": 1.0, "seed": 1}
    report = caption(pictures=f"{chosen[1].id}, {chosen[0].id}", **again).report
    assert (report["captioned"], report["skipped"]) == (2, 0)
    second = captions(dataset)
    assert {name for name in first if second[name] != first[name]} == {picture.name for picture in chosen}
    assert caption(pictures=f"name:{chosen[0].name}", **again | {"seed": 2}).report["captioned"] == 1
    third = captions(dataset)
    assert {name for name in first if third[name] != second[name]} == {chosen[0].name}


def test_the_pictures_a_check_flags_are_described_again(caption, dataset):
    looping = dataset.pictures()[0]
    for picture in dataset.pictures():
        text = "red car, " * 30 if picture == looping else f"a picture of {picture.name}."
        dataset.write_caption(picture.id, text, author="tiny")
    assert caption(pictures="flagged:loop", existing="replace_machine").report["captioned"] == 1
    assert "red car" not in dataset.picture(looping.id).caption


@pytest.mark.parametrize("pictures", ["1,99", "flagged:nonsense", "colour:red"])
def test_pictures_that_do_not_exist_are_named(caption, dataset, pictures):
    with pytest.raises(InputError):
        caption(pictures=pictures)


def test_a_further_caption_leaves_the_caption_alone(caption, dataset):
    first, second, *_ = dataset.pictures()
    dataset.write_caption(first.id, "typed by hand", author="human")
    dataset.write_caption(second.id, "short by hand", author="human", kind="short")
    assert caption(written_as="short").report["captioned"] == 4
    written = alternates.current(dataset)
    assert written[second.id]["short"].text == "short by hand"
    assert all(written[picture.id]["short"].text for picture in dataset.pictures())
    assert [picture.caption for picture in dataset.pictures()] == ["typed by hand", "", "", "", ""]
    assert caption(written_as="short", existing="replace_machine").report["captioned"] == 0
    assert caption(written_as="short", existing="replace_machine", max_tokens=4).report["captioned"] == 4


def test_prompts_get_the_trigger_and_captions_a_frame(caption, dataset):
    asked = {"prompt": "Describe {name}.", "prefix": "{trigger}, ", "suffix": ", oil on canvas", "trigger": "OHWX"}
    caption(**asked)
    single = captions(dataset)
    assert all(text.startswith("OHWX, ") and text.endswith(", oil on canvas") for text in single.values())
    assert dataset.history(1)[0].details["prompt"] == "Describe OHWX."
    caption(**asked, more_prompts=("What has {name}?",), existing="replace_machine")
    for picture in dataset.pictures():  # the second answer stands behind the first, before the style
        assert picture.caption.startswith(single[picture.name].removesuffix(", oil on canvas") + " ")
        assert picture.caption.endswith(", oil on canvas")
    assert dataset.history(1)[1].details["prompts"] == ["Describe OHWX.", "What has OHWX?"]


def test_a_prompt_that_wants_a_trigger_gets_none_for_nothing(caption, dataset):
    with pytest.raises(InputError, match="asks for"):
        caption(prompt="Describe {name}.")


def test_a_preset_asks_in_the_words_of_the_captioner(caption, dataset):
    caption(preset="style")
    prompt = dataset.history(dataset.pictures()[0].id)[0].details["prompt"]
    assert "do not name the medium" in " ".join(prompt.lower().split())


def test_a_preview_shows_settings_side_by_side_and_writes_nothing(caption, dataset, workspace):
    settings = ({"prompt": "Tags?"}, {"prompt": "Tags?", "temperature": 0}, {"rerolls": 0})
    outcome = caption(preview=tuple(map(json.dumps, settings)), temperature=1.0)
    assert not any(captions(dataset).values())
    shown = RunFolder(workspace.run("described.caption")).result()["report"]["preview"]
    assert shown == outcome.report["preview"]
    assert [column["prompt"] for column in shown["settings"]] == ["Tags?", "Tags?", CaptionConfig().prompt]
    assert len(shown["pictures"]) == 4
    for row in shown["pictures"]:
        texts = [each["text"] for each in row["captions"]]
        assert len(texts) == 3
        assert all(texts)
    caption(prompt="Tags?", temperature=1.0)
    by_id = {picture.id: picture.caption for picture in dataset.pictures()}
    assert all(row["captions"][0]["text"] == by_id[row["id"]] for row in shown["pictures"])


def test_kill_9_loses_no_caption_and_the_next_run_does_the_rest(workspace, dataset, make_recipe, tmp_path, caption):
    made = make_recipe(batch_size=1, max_tokens=400)
    path = tmp_path / "recipe.yaml"
    path.write_text(made.to_yaml())
    command = [sys.executable, "-m", "lora_lightning", "caption", str(path), "--home", str(workspace.home)]
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(captions(dataset).values()) and job.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(job.pid, signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL, job.stderr.read()
    job.stderr.close()

    before = {name: text for name, text in captions(Dataset.open(dataset.folder)).items() if text}
    assert 0 < len(before) < 5
    assert RunFolder(workspace.run("described.caption")).status().state == "interrupted"
    assert caption().report["captioned"] == 5 - len(before)
    assert before.items() <= captions(dataset).items()
