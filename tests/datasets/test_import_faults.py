"""Imports that are killed or meet a full disk: the dataset is as it was, and the next import goes through."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.workspace import Workspace

IMPORTER = Path(__file__).with_name("importer.py")
STEPS_OF_A_COMMIT = 8  # 5 pictures moved, the folder synced, one transaction, published


def command(home, source, *fault):
    return [sys.executable, str(IMPORTER), str(home), str(source), *map(str, fault)]


def run(*arguments, prefix=()):
    return subprocess.run([*prefix, *command(*arguments)], capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def source(photos, tmp_path_factory):
    """Five real photographs with captions."""
    folder = tmp_path_factory.mktemp("source")
    for photo in photos[:5]:
        shutil.copy(photo, folder)
        (folder / f"{photo.stem}.txt").write_text(f"a picture of {photo.stem}")
    return folder


@pytest.fixture
def home(request, tmp_path, photos):
    """A workspace in which dataset x does not exist, or has one picture and a caption by a person."""
    workspace = Workspace.find(tmp_path / "home")
    if request.param == "existing":
        import_sources(workspace, "x", [photos[13]])
        Dataset.open(workspace.dataset("x")).write_caption(1, "a rocket", author="human")
    return workspace.home


def content(home):
    """What anybody sees of the datasets: names, rows and the bytes of every picture."""
    workspace = Workspace.find(home)
    datasets = [Dataset.open(workspace.dataset(name)) for name in workspace.dataset_names()]
    return {dataset.name: [(p, dataset.path(p).read_bytes()) for p in dataset.pictures()] for dataset in datasets}


def check_complete(home, source, before):
    """Import again without a fault: all pictures and captions are there, and nothing else."""
    import_sources(Workspace.find(home), "x", [source])
    dataset = Dataset.open(Workspace.find(home).dataset("x"))
    pictures = dataset.pictures()
    assert len(pictures) == 5 + len(before.get("x", []))
    assert all(picture.caption for picture in pictures)
    assert {path.name for path in dataset.images.iterdir()} == {picture.file for picture in pictures}
    assert [path.name for path in (home / "datasets" / ".importing").iterdir()] == [".x"]


@pytest.mark.parametrize("home", ["new", "existing"], indirect=True)
@pytest.mark.parametrize("step", range(1, STEPS_OF_A_COMMIT + 1))
def test_killed_at_each_step_of_the_commit(home, source, step):
    before = content(home)
    killed = run(home, source, "kill", step)
    assert killed.returncode == -9
    committed = step == STEPS_OF_A_COMMIT and "x" in before  # for a new dataset the last step makes it visible
    assert len(content(home).get("x", [])) == len(before.get("x", [])) + 5 * committed
    if not committed:
        assert content(home) == before
    check_complete(home, source, before)


@pytest.mark.parametrize("home", ["new", "existing"], indirect=True)
def test_killed_at_any_time(home, source):
    before = content(home)
    seen = set()
    for attempt in range(5):
        worker = subprocess.Popen(command(home, source), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        worker.stdout.readline()
        time.sleep(0.02 + 0.03 * attempt)
        worker.kill()
        worker.communicate()
        now = content(home)
        complete = len(now.get("x", [])) == 5 + len(before.get("x", []))
        seen.add(complete)
        assert complete or now == before
        if complete:
            break
    assert False in seen  # at least one was killed in the middle
    check_complete(home, source, before)


@pytest.mark.parametrize("home", ["new", "existing"], indirect=True)
@pytest.mark.parametrize("fault", [("full", 1), ("full", 4), ("limit", 200_000), ("limit", 20_000), ("limit", 4_000)])
def test_a_full_disk_leaves_everything_as_it_was(home, source, fault):
    before = content(home)
    result = run(home, source, *fault)
    assert result.returncode == 1, result.stderr
    error = json.loads(result.stdout.splitlines()[-1])
    assert error["kind"] == "DiskFull"
    assert "no space left on the disk while importing into 'x'" in error["message"]
    assert error["hint"]
    assert "Traceback" not in result.stderr
    assert content(home) == before
    assert not (home / "datasets" / ".importing" / "x").exists()
    check_complete(home, source, before)


def can_mount():
    return (
        subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0
    )


@pytest.mark.parametrize("kibibytes", [64, 700, 1340, 1370])
def test_a_file_system_that_is_really_full(source, tmp_path, kibibytes):
    """A tmpfs of a few sizes: the copies or the database run out of room."""
    if not shutil.which("unshare") or not can_mount():
        pytest.skip("no user namespace here; /dev/full and RLIMIT_FSIZE above raise the kernel's own errors too")
    home = tmp_path / "home"
    home.mkdir()
    script = 'mount -t tmpfs -o size="$1"k none "$2" && shift 1 && home="$1" && shift 1 && "$@"; code=$?; '
    script += 'echo; find "$home"; exit $code'
    prefix = ["unshare", "-rm", "sh", "-c", script, "sh", str(kibibytes), str(home)]
    result = run(home, source, prefix=prefix)
    assert result.returncode == 1, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    error = json.loads(next(line for line in lines if line.startswith("{")))
    assert error["kind"] == "DiskFull"
    left = [line for line in lines if line.startswith(str(home))]
    assert left == [str(home), f"{home}/datasets", f"{home}/datasets/.importing", f"{home}/datasets/.importing/.x"]
