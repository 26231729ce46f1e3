import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lora_lightning.caption.module import CaptionWriter, Result
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import DatasetError, ModelError, Stopped
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


@pytest.mark.parametrize("again", [False, True], ids=["new only", "replace"])
def test_what_a_person_wrote_or_imported_is_never_overwritten(caption, dataset, tmp_path, again):
    from lora_lightning.datasets.importing import import_sources
    from lora_lightning.workspace import Workspace

    human, imported, old, *new = dataset.pictures()
    dataset.write_caption(human.id, "typed by hand", author="human")
    sidecar = tmp_path / "captions.json"
    sidecar.write_text(json.dumps({imported.name: "from a file"}))
    import_sources(Workspace(dataset.folder.parents[1]), dataset.name, [sidecar])
    dataset.write_caption(old.id, "by another captioner", author="blip", details={"model": "blip"})

    report = caption(replace=again).report

    kept = captions(dataset)
    assert (kept[human.name], kept[imported.name]) == ("typed by hand", "from a file")
    assert (kept[old.name] == "by another captioner") is not again
    assert report["captioned"] == len(new) + again
    assert report["skipped"] == 3 - again


def test_replacing_leaves_what_would_come_out_the_same(caption, dataset):
    caption(temperature=0)
    assert caption(temperature=0, replace=True).report["captioned"] == 0
    assert caption(temperature=0, replace=True, max_tokens=5).report["captioned"] == 5
    assert [len(dataset.history(picture.id)) for picture in dataset.pictures()] == [2] * 5


def test_a_stop_ends_between_batches_and_the_next_run_does_the_rest(caption, dataset):
    def stop_after_the_first_batch(reporter):
        advance = reporter.advance

        def and_stop(done, **figures):
            advance(done, **figures)
            reporter.run.request("STOP")

        reporter.advance = and_stop

    with pytest.raises(Stopped):
        caption(stop_after_the_first_batch)
    first = {picture.id: picture.caption for picture in dataset.pictures() if picture.caption}
    assert len(first) == 2
    dataset.write_caption(next(iter(first)), "put right by a person", author="human")

    report = caption().report

    assert (report["captioned"], report["skipped"]) == (3, 2)
    assert all(captions(dataset).values())
    assert [len(dataset.history(id)) for id in first] == [2, 1]


def test_a_caption_typed_meanwhile_stays(dataset):
    seen = dataset.pictures()[0]
    dataset.write_caption(seen.id, "typed meanwhile", author="human")
    writer = CaptionWriter(dataset, "tiny", {})
    writer._started = 0.0
    writer.write_on_batch_end(None, None, [Result(seen, "by the machine")], None, None, 0, 0)
    assert dataset.picture(seen.id).caption == "typed meanwhile"
    assert writer.tally.captioned == 0


def test_a_picture_taken_out_meanwhile_is_reported(dataset):
    writer = CaptionWriter(dataset, "tiny", {})
    writer._started = 0.0
    gone = replace(dataset.pictures()[0], id=999)
    writer.write_on_batch_end(None, None, [Result(gone, "text")], None, None, 0, 0)
    assert writer.tally.failed == [{"file": gone.name, "reason": "dataset 'photos' has no picture number 999"}]


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
