"""The LoRA file: what is written is what was trained, for every loader, and what is not is refused."""

import hashlib
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import FluxPipeline
from safetensors import safe_open

from lora_lightning.errors import JobError, LoraFileError
from lora_lightning.models import lora
from lora_lightning.models.lora_files import diffusers as lora_file
from lora_lightning.models.lora_files.header import TrainingFacts, header
from lora_lightning.models.lora_files.verify import SAVED, verify
from lora_lightning.models.sampling import Shot, draw

SHOT = Shot("a red cup", seed=3, width=64, height=64, steps=2, guidance=3.5)
FACTS = TrainingFacts(
    name="my-lora",
    trigger="TOK",
    base="black-forest-labs/FLUX.1-dev",
    architecture="flux-1-dev",
    rank=4,
    alpha=8.0,
    targets="all",
    steps=100,
    learning_rate=1e-4,
    optimizer="adamw",
    batch_size=2,
    accumulate=1,
    seed=0,
    resolutions=(512, 768),
    dataset="pictures",
    captions=("TOK, a cup", "TOK, a cat"),
    session="123",
    started=1.0,
    finished=2.0,
)


def trained(family, rank=4, alpha=8.0, targets="all", **options):
    """A transformer whose adapter does something."""
    transformer = family.load_transformer()
    targets = family.lora_targets.get(targets, targets)
    lora.inject(transformer, rank=rank, alpha=alpha, targets=targets, seed=0, **options)
    generator = torch.Generator().manual_seed(1)
    for name, weight in lora.trainable(transformer).items():
        if ".lora_B." in name:
            weight.data.normal_(std=0.1 * rank / alpha, generator=generator)
    return transformer


def largest_difference(one, other):
    return np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max()


@pytest.mark.parametrize(("rank", "alpha"), [(4, 4.0), (4, 8.0), (4, 1.0), (6, 5.0)])
def test_loaded_by_the_stock_pipeline_it_draws_what_the_adapter_in_memory_draws(flux, tiny_flux, tmp_path, rank, alpha):
    transformer = trained(flux, rank, alpha)
    text = flux.encode_text([SHOT.prompt])
    ours = draw(flux.pipeline(transformer), SHOT, text)
    path = lora_file.write(tmp_path / "a.safetensors", transformer, {}, torch.float32)

    stock = FluxPipeline.from_pretrained(tiny_flux, dtype=torch.float32)
    stock.set_progress_bar_config(disable=True)
    base = draw(stock, SHOT, text)
    stock.load_lora_weights(str(path), adapter_name="mine")
    loaded = draw(stock, SHOT, text)
    stock.set_adapters("mine", 0.0)
    off = draw(stock, SHOT, text)

    assert largest_difference(loaded, base) > 5
    assert largest_difference(loaded, ours) <= 1  # the folded scale may round the last bit
    assert largest_difference(off, base) == 0


def test_keys_and_shapes_are_those_of_the_contract(flux, tmp_path):
    path = lora_file.write(tmp_path / "a.safetensors", trained(flux), {"a": "b"}, torch.bfloat16)
    file = lora_file.read(path)
    assert len(file.tensors) == 2 * 34
    assert all(key.startswith("transformer.") for key in file.tensors)
    assert {key.rsplit(".", 2)[1] + "." + key.rsplit(".", 2)[2] for key in file.tensors} == {
        "lora_A.weight",
        "lora_B.weight",
    }
    assert file.tensors["transformer.transformer_blocks.0.attn.to_q.lora_A.weight"].shape == (4, 64)
    assert file.tensors["transformer.single_transformer_blocks.1.proj_out.lora_B.weight"].shape == (64, 4)
    assert {tensor.dtype for tensor in file.tensors.values()} == {torch.bfloat16}
    assert "lora_adapter_metadata" not in file.header
    assert file.header["a"] == "b"


def test_the_folded_weights_give_the_trained_update_without_any_alpha(flux, tmp_path):
    transformer = trained(flux, rank=4, alpha=8.0)
    tensors = lora_file.read(lora_file.write(tmp_path / "a.safetensors", transformer, {}, torch.float32)).tensors
    for adapter in lora.adapters(transformer):
        key = f"transformer.{adapter.module}"
        update = tensors[f"{key}.lora_B.weight"] @ tensors[f"{key}.lora_A.weight"]
        assert torch.allclose(update, 2.0 * adapter.b_OR @ adapter.a_RI, atol=1e-7)


def test_the_hash_is_that_of_the_tensors(flux, tmp_path):
    path = lora_file.write(tmp_path / "a.safetensors", trained(flux), {}, torch.float32)
    data = path.read_bytes()
    content = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    assert lora_file.read_header(path)["modelspec.hash_sha256"] == f"0x{content}"


def test_the_header_tells_what_webuis_read(flux, tmp_path):
    lora_file.write(tmp_path / "a.safetensors", trained(flux), header(FACTS), torch.float32)
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        found = file.metadata()
    wanted = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "flux-1-dev/lora",
        "modelspec.implementation": "https://github.com/black-forest-labs/flux",
        "modelspec.title": "my-lora",
        "modelspec.trigger_phrase": "TOK",
        "modelspec.resolution": "768x768",
        "modelspec.license": "FLUX.1 [dev] Non-Commercial License",
        "ss_output_name": "my-lora",
        "ss_base_model_version": "flux1",
        "ss_network_module": "networks.lora_flux",
        "ss_network_dim": "4",
        "ss_network_alpha": "8",
        "ss_steps": "100",
        "ss_num_epochs": "100",
        "ss_learning_rate": "0.0001",
        "ss_optimizer": "adamw",
        "ss_seed": "0",
        "ss_session_id": "123",
    }
    assert {key: found[key] for key in wanted} == wanted
    assert json.loads(found["ss_tag_frequency"]) == {"pictures": {"TOK": 2, "a cup": 1, "a cat": 1}}
    assert "modelspec.thumbnail" not in found  # empty values are left out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_verify_accepts_what_was_trained_and_leaves_it_active(flux, tmp_path, dtype):
    transformer = trained(flux)
    pipeline, text = flux.pipeline(transformer), flux.encode_text([SHOT.prompt])
    before = np.asarray(draw(pipeline, SHOT, text))
    path = lora_file.write(tmp_path / "a.safetensors", transformer, {}, dtype)
    assert verify(pipeline, path, dtype) <= torch.finfo(dtype).eps
    assert np.array_equal(np.asarray(draw(pipeline, SHOT, text)), before)
    assert len(list(lora.adapters(transformer, SAVED))) == 34


def scaled(tensors):
    return {key: value * 0.25 if "lora_A" in key else value for key, value in tensors.items()}


def shortened(tensors):
    return {key: value for key, value in tensors.items() if "single_transformer_blocks.1" not in key}


def poisoned(tensors):
    key = next(key for key in tensors if "lora_B" in key)
    return tensors | {key: torch.full_like(tensors[key], float("nan"))}


@pytest.mark.parametrize("harm", [scaled, shortened, poisoned])
def test_verify_refuses_what_was_not(flux, tmp_path, harm):
    transformer = trained(flux)
    path = lora_file.write(tmp_path / "a.safetensors", transformer, {}, torch.bfloat16)
    safetensors.torch.save_file(harm(safetensors.torch.load_file(path)), path)
    with pytest.raises(JobError, match="is not what was trained"):
        verify(flux.pipeline(transformer), path, torch.bfloat16)


def test_files_that_are_no_lora_are_refused(flux, tmp_path):
    damaged, other, wrong = (tmp_path / f"{name}.safetensors" for name in ("damaged", "other", "wrong"))
    damaged.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00 nonsense")
    safetensors.torch.save_file({"weight": torch.zeros(2)}, other)
    module = "transformer.transformer_blocks.0.attn.to_q"
    safetensors.torch.save_file(
        {f"{module}.lora_A.weight": torch.zeros(4, 99), f"{module}.lora_B.weight": torch.zeros(99, 4)}, wrong
    )
    with pytest.raises(LoraFileError, match="there is no LoRA file"):
        lora_file.read(tmp_path / "absent.safetensors")
    with pytest.raises(LoraFileError, match="no readable"):
        lora_file.read(damaged)
    with pytest.raises(LoraFileError, match="holds no LoRA"):
        lora_file.read(other)
    with pytest.raises(LoraFileError, match="does not fit this base model"):
        lora_file.load(flux.pipeline(flux.load_transformer()), wrong, "wrong")
