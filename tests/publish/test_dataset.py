"""A dataset pushed to a Hub of our own, and imported again from what arrived there."""

import pytest

from lora_lightning.__main__ import main
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import PublishError
from lora_lightning.publish.dataset import push


@pytest.fixture
def pictures(workspace, photos) -> Dataset:
    import_sources(workspace, "trio", photos[3:6])
    made = Dataset.open(workspace.dataset("trio"))
    made.write_caption(2, "a cup of coffee", author="human")
    return made


def test_what_arrives_is_an_image_folder_that_comes_back(hub, workspace, pictures):
    pushed = push(pictures, "tester/trio")
    assert pushed.url == f"{hub.url}/datasets/tester/trio"
    assert pushed.private
    arrived = hub.repo("tester/trio").files
    assert {path.name for path in arrived.iterdir()} == {
        "README.md", "metadata.jsonl", *(f"000{n}.{end}" for n, end in ((1, "png"), (2, "png"), (3, "png")))
    }  # fmt: skip
    assert "1 of them with a caption" in (arrived / "README.md").read_text()
    (arrived / "README.md").unlink()
    report = import_sources(workspace, "again", [arrived])
    assert report.rejected == []
    again = Dataset.open(workspace.dataset("again")).pictures()
    assert [picture.caption for picture in again] == [picture.caption for picture in pictures.pictures()]
    assert all("datasets" in request for request in hub.requests if "commit" in request)


def test_the_command_pushes_too(hub, workspace, pictures, capsys):
    assert main(["export", "trio", "--hub", "tester/trio", "--home", str(workspace.home)]) == 0
    assert f"{hub.url}/datasets/tester/trio" in capsys.readouterr().out


def test_another_user_s_namespace_is_refused(hub, pictures):
    with pytest.raises(PublishError, match="may not write"):
        push(pictures, "somebody/trio")
