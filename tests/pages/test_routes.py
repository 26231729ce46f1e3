"""The server's own routes, asked over HTTP."""

import io
import json
import threading
import time
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.ui import gallery
from lora_lightning.ui.routes import routes

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard's own imports


@pytest.fixture
def served(workspace):
    """The routes behind a real server; its address."""
    workspace.home.mkdir(parents=True, exist_ok=True)
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes(workspace)), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def status(address: str) -> int:
    try:
        with urlopen(address) as answer:
            return answer.status
    except HTTPError as error:
        with error:
            return error.code


def test_a_picture_of_any_kind_is_shown_small_or_large(served, workspace, photos, tmp_path):
    with Image.open(photos[3]) as photo:
        photo.convert("RGB").resize((1600, 1000)).save(tmp_path / "scan.tiff")
    import_sources(workspace, "scans", [tmp_path / "scan.tiff"])
    (picture,) = Dataset.open(workspace.dataset("scans")).pictures()
    for query, side in (("", 384), ("?large", 1280)):
        with urlopen(f"{served}/thumbs/scans/{picture.file}{query}") as answer, Image.open(answer) as image:
            assert (image.format, image.width) == ("WEBP", side)
    tile = gallery.of_picture(workspace, Dataset.open(workspace.dataset("scans")), picture)
    assert tile.full == f"/thumbs/scans/{picture.file}?large"


def test_a_file_of_the_workspace_is_served_as_what_it_is(served, workspace):
    (workspace.output / "mine").mkdir(parents=True)
    workspace.lora("mine").write_bytes(b"weights")
    with urlopen(f"{served}/files/output/mine/mine.safetensors?v=1") as answer:
        assert answer.read() == b"weights"
        assert answer.headers["content-disposition"] == 'attachment; filename="mine.safetensors"'
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["page.html", "dataset.sqlite", "last.ckpt", "script.svg", ".hidden.txt", ".private/key.txt", "absent.png"]
)
def test_other_kinds_and_hidden_files_are_not(served, workspace, path):
    if "absent" not in path:
        file = workspace.home / path
        file.parent.mkdir(exist_ok=True)
        file.write_text("secret")
    assert status(f"{served}/files/{path}") == 404


@pytest.mark.parametrize("path", ["../outside.txt", "%2e%2e/outside.txt", "runs/../../outside.txt", "..%2foutside.txt"])
def test_nothing_outside_the_workspace_is(served, workspace, path):
    (workspace.home.parent / "outside.txt").write_text("secret")
    workspace.runs.mkdir()
    assert status(f"{served}/files/{path}") == 404


def test_a_link_that_leads_outside_is_not_followed(served, workspace):
    outside = workspace.home.parent / "outside.txt"
    outside.write_text("secret")
    (workspace.home / "inside.txt").symlink_to(outside)
    assert status(f"{served}/files/inside.txt") == 404


def test_a_thumbnail_is_a_small_webp(served, workspace, dataset):
    picture = dataset.pictures()[0]
    with urlopen(f"{served}/thumbs/photographs/{picture.file}") as answer:
        assert answer.headers["content-type"] == "image/webp"
        assert 0 < len(answer.read()) < dataset.path(picture).stat().st_size
    assert status(f"{served}/thumbs/photographs/..%2f..%2fdataset.sqlite") == 404
    assert status(f"{served}/thumbs/nothing/{picture.file}") == 404


def test_a_drawn_picture_has_a_small_copy_that_is_made_once(served, workspace):
    picture = workspace.runs / "mine" / "samples" / "1.png"
    picture.parent.mkdir(parents=True)
    Image.effect_noise((1024, 512), 60).save(picture)
    for _ in range(2):
        with urlopen(f"{served}/small/runs/mine/samples/1.png?v=1") as answer:
            assert answer.headers["content-type"] == "image/webp"
            assert Image.open(io.BytesIO(answer.read())).size == (384, 192)
    assert len(list((workspace.cache / "small").iterdir())) == 1
    (workspace.runs / "mine" / "broken.png").write_bytes(b"no picture")
    assert status(f"{served}/small/runs/mine/broken.png") == 500
    assert status(f"{served}/small/runs/mine/absent.png") == 404
    assert status(f"{served}/small/..%2foutside.png") == 404


def test_tensorboard_reads_the_runs_of_the_workspace_under_its_prefix(served, workspace):
    writer = EventFileWriter(str(workspace.runs / "mine" / "tb"))
    for step in range(3):
        scalar = Summary(value=[Summary.Value(tag="loss", simple_value=1.0 / (step + 1))])
        writer.add_event(Event(step=step, wall_time=time.time(), summary=scalar))
    writer.close()
    with urlopen(f"{served}/tb/") as answer:
        assert b"TensorBoard" in answer.read()
    deadline = time.monotonic() + 20
    runs = []
    while not runs and time.monotonic() < deadline:
        with urlopen(f"{served}/tb/data/runs") as answer:
            runs = json.load(answer)
        time.sleep(0.1)
    assert runs == ["mine/tb"]
    assert status(f"{served}/font-roboto/oMMgfZMQthOryQo9n22dcuvvDin1pK8aKteLpeZ5c0A.woff2") == 200
