import shutil
import socket
import time

import huggingface_hub.constants
import pytest
import torch

from lora_lightning.caption import sources
from lora_lightning.caption.captioners.llava import build
from lora_lightning.caption.config import PUBLISHED
from lora_lightning.caption.sources import Source, fetch, resolve
from lora_lightning.errors import ModelError
from lora_lightning.models import hub as models_hub

REPO = "tester/tiny-captioner"


@pytest.fixture
def repo(hub, tiny_captioner, tmp_path, monkeypatch):
    """The captioner on a Hub of our own, and an empty local cache."""
    repo = hub.repo(REPO)
    shutil.copytree(tiny_captioner, repo.files)
    (repo.files / "pytorch_model.bin").write_bytes(b"a pickle")
    repo.save(private=False, sha="a" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return repo


@pytest.mark.parametrize("name", PUBLISHED)
def test_short_names_are_hub_ids(name):
    assert resolve(name) == Source(name, PUBLISHED[name])


def test_an_embedded_captioner_goes_by_its_folders_name(tiny_captioner, tmp_path, monkeypatch):
    shutil.copytree(tiny_captioner, tmp_path / "captioner-mini")
    monkeypatch.setattr(sources, "EMBEDDED", tmp_path)
    assert resolve("captioner-mini") == Source("captioner-mini", str(tmp_path / "captioner-mini"))


def test_a_folder_goes_by_its_name(tiny_captioner):
    found = resolve(str(tiny_captioner))
    assert found.name == tiny_captioner.name
    assert fetch(found) == tiny_captioner


@pytest.mark.parametrize("name", ["captioner-maxi", "/no/such/folder", "~/nowhere", "./a/b/c"])
def test_what_is_nowhere_is_named(name):
    with pytest.raises(ModelError) as caught:
        resolve(name)
    assert repr(name) in caught.value.message
    assert "joycaption" in caught.value.hint


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve(str(tmp_path))


def test_a_hub_id_is_downloaded_once_without_pickles(repo, hub):
    folder = fetch(resolve(REPO))
    assert build(folder, torch.device("cpu"))
    assert not (folder / "pytorch_model.bin").exists()
    hub.requests.clear()
    assert fetch(resolve(REPO)) == folder
    assert not hub.requests


def test_a_hub_id_that_does_not_exist_is_named(repo):
    with pytest.raises(ModelError, match="no model tester/nothing"):
        fetch(resolve("tester/nothing"))


def test_a_gated_model_says_where_to_accept_its_licence(repo):
    repo.save(private=False, sha="a" * 40, gated="manual")
    with pytest.raises(ModelError, match="gated") as caught:
        fetch(resolve(REPO))
    assert f"https://huggingface.co/{REPO}" in caught.value.hint
    assert "hf auth login" in caught.value.hint


def test_offline_mode_is_named_at_once():
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        fetch(resolve("tester/never-seen"))


def test_a_network_that_swallows_everything_is_given_up_soon(repo, monkeypatch):
    monkeypatch.setattr(models_hub, "REACH_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(ModelError, match="cannot be reached") as caught:
            fetch(resolve(REPO))
    assert time.monotonic() - started < 5
    assert "hf download" in caught.value.hint
