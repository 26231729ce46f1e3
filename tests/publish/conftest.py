import json

import huggingface_hub.constants
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from lora_lightning import recipe
from lora_lightning.publish.card import write_card
from lora_lightning.runs.files import write_text
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.job import reserve
from lora_lightning.runs.reporter import Outcome
from tests.publish.hub_server import WRITE_TOKEN, serving

NAME = "my-style"
REPORT = {"steps": 600, "steps_per_second": 2.5, "final_loss": 0.41234}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub of our own, which huggingface_hub takes for the real one; a user who may write is logged in."""
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    with serving(tmp_path / "hub") as server:
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")  # fmt: skip # noqa: E501
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield server


@pytest.fixture
def make_recipe():
    def make(**changes):
        values = {"name": NAME, "trigger": "MYSTYLE", "publish": {"repo": f"tester/{NAME}"}}
        return recipe.parse(values | changes)

    return make


@pytest.fixture
def finish(workspace):
    """Lay out a finished LoRA with real files, as a training leaves it."""

    def lay_out(made):
        lora = workspace.lora(made.name)
        (lora.parent / "samples").mkdir(parents=True)
        to_q = "transformer.transformer_blocks.0.attn.to_q"
        weights = {f"{to_q}.lora_A.weight": torch.rand(4, 64), f"{to_q}.lora_B.weight": torch.rand(64, 4)}
        save_file(weights, lora, metadata={"ss_output_name": made.name})
        for place, prompt in enumerate(made.sample.prompts):
            info = PngInfo()
            info.add_itxt("prompt", prompt)
            Image.new("RGB", (16, 16), (place, 0, 0)).save(lora.parent / f"samples/0000600-{place}.png", pnginfo=info)
        Image.new("RGB", (16, 16)).save(lora.parent / "samples" / "sheet.png")
        write_text(lora.parent / "recipe.yaml", made.to_yaml())
        run = reserve(workspace, "train", made.name, made.to_yaml())
        write_text(run.path / "dataset.jsonl", "".join(json.dumps({"file": f"{n}.png"}) + "\n" for n in range(14)))
        write_card(made, workspace, RunFolder(run.path), Outcome({"lora": str(lora)}, REPORT))
        return lora.parent

    return lay_out
