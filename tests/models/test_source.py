"""From a name to a folder: what is missing is said, and the network is asked for once."""

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from lora_lightning.errors import ModelError
from lora_lightning.models.base import open_family
from lora_lightning.models.source import local_folder


@pytest.fixture
def model(tiny_flux, tmp_path):
    return shutil.copytree(tiny_flux, tmp_path / "model")


def test_a_complete_folder_is_taken(model):
    assert local_folder(str(model)) == model


@pytest.mark.parametrize("name", ["nowhere/at/all", "./nowhere", "~/nowhere-at-all", "nowhere"])
def test_a_folder_that_is_not_there(name):
    with pytest.raises(ModelError, match=f"there is no model folder {name}") as caught:
        local_folder(name)
    assert "model_index.json" in caught.value.hint


@pytest.mark.parametrize(
    "lost",
    [
        "model_index.json",
        "vae/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "tokenizer_2/tokenizer_config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_an_incomplete_folder_names_what_it_lacks(model, lost):
    (model / lost).unlink()
    with pytest.raises(ModelError, match="incomplete") as caught:
        local_folder(str(model))
    assert lost.replace("diffusion_pytorch_model", "*") in caught.value.message


def test_every_shard_of_an_index_is_needed(model):
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    (model / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    (model / "transformer" / "diffusion_pytorch_model.safetensors").rename(model / "transformer" / "part-1.safetensors")
    with pytest.raises(ModelError, match=r"incomplete: transformer/part-2.safetensors missing"):
        local_folder(str(model))


def test_another_kind_of_model_is_refused(model):
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(ModelError, match="StableDiffusionPipeline"):
        open_family(str(model), device=torch.device("cpu"), dtype=torch.float32)


class Hub(BaseHTTPRequestHandler):
    """Answers every question about a repository with what its name asks for."""

    def do_GET(self):
        gated = "gated" in self.path
        self.send_response(403 if gated else 401)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def ask(tmp_path):
    """Ask for a Hub id in a process of its own: the Hub's address is read when its client is imported."""

    def run(repo, **environment):
        code = (
            "import sys; from lora_lightning.errors import ModelError; from lora_lightning.models.source import *\n"
            "try: local_folder(sys.argv[1])\n"
            "except ModelError as error: print(error.message, '|', error.hint)"
        )
        found = subprocess.run(
            [sys.executable, "-c", code, repo],
            env=os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert found.returncode == 0, found.stderr
        return found.stdout

    return run


@pytest.fixture
def begun(tmp_path, tiny_flux):
    """A download that was cut off: the configurations are in the Hub's cache, the weights are not."""
    snapshot = tmp_path / "hf" / "hub" / "models--somebody--gated-model" / "snapshots" / "0123abc"
    shutil.copytree(tiny_flux, snapshot, ignore=shutil.ignore_patterns("*.safetensors"))
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0123abc")


def test_a_download_that_was_cut_off_is_completed_or_said_to_be_incomplete(ask, begun):
    assert "the local copy of somebody/gated-model is incomplete: text_encoder" in ask(
        "somebody/gated-model", HF_HUB_OFFLINE="1"
    )
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0"}
    try:
        assert "somebody/gated-model is gated" in ask("somebody/gated-model", **address)  # so it was asked for
    finally:
        server.shutdown()
        server.server_close()


def test_the_hub_says_no_and_the_way_out_is_told(ask):
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0"}
    try:
        gated = ask("somebody/gated-model", **address)
        absent = ask("somebody/absent-model", **address)
    finally:
        server.shutdown()
        server.server_close()
    assert "somebody/gated-model is gated" in gated
    assert "https://huggingface.co/somebody/gated-model" in gated
    assert "hf auth login" in gated
    assert "there is no model somebody/absent-model" in absent


def test_offline_and_not_in_the_cache(ask):
    said = ask("somebody/some-model", HF_HUB_OFFLINE="1")
    assert "somebody/some-model is neither a folder here nor in the local Hub cache" in said
    assert "give its folder" in said
