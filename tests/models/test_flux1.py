"""FLUX.1 through the family, against diffusers' stock pipeline and transformer."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, FluxKontextPipeline, FluxPipeline
from PIL import Image

from lora_lightning.errors import ModelError
from lora_lightning.models.base import TextEmbedding, open_family
from lora_lightning.models.sampling import Shot, draw

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_text_is_embedded_as_the_stock_pipeline_does(tiny_flux, dtype):
    family = open_family(str(tiny_flux), device=CPU, dtype=dtype)
    stock = FluxPipeline.from_pretrained(tiny_flux, dtype=dtype)
    texts = ["a red cup on a table", ""]
    ours = family.encode_text(texts)
    with torch.no_grad():
        sequence, pooled, _ = stock.encode_prompt(texts, max_sequence_length=32)
    assert ours.sequence_BLD.shape == (2, 32, 32)
    assert torch.equal(ours.sequence_BLD, sequence)
    assert torch.equal(ours.pooled_BD, pooled)


def test_text_is_as_long_as_the_model_reads(flux, schnell, tiny_flux, tmp_path):
    """512 tokens for dev and 256 for schnell, less where the tokenizer says so (the tiny one says 32)."""
    assert flux.encode_text(["x"]).sequence_BLD.shape[1] == 32
    assert (flux._most_tokens, schnell._most_tokens) == (512, 256)
    copy = shutil.copytree(tiny_flux, tmp_path / "longer")
    config = copy / "tokenizer_2" / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"model_max_length": 32', '"model_max_length": 4096'))
    longer = open_family(str(copy), device=CPU, dtype=torch.float32)
    assert longer.encode_text(["x"]).sequence_BLD.shape[1] == 512


def test_a_picture_becomes_the_posterior_that_the_transformer_expects(flux, tiny_flux):
    pixels = torch.rand(1, 3, 48, 80) * 2 - 1
    posterior = flux.encode_image(pixels)
    vae = AutoencoderKL.from_pretrained(tiny_flux / "vae", dtype=torch.float32)
    with torch.no_grad():
        wanted = vae.encode(pixels).latent_dist
    assert posterior.mean_BCHW.shape == (1, 16, 6, 10)
    assert torch.allclose(posterior.mean_BCHW, (wanted.mean - 0.1159) * 0.3611)
    assert torch.allclose(posterior.std_BCHW, wanted.std * 0.3611)


@pytest.mark.parametrize("model", ["flux", "schnell"])
def test_velocity_is_what_the_transformer_says(model, request):
    family = request.getfixturevalue(model)
    transformer = family.load_transformer()
    x, sigma = torch.randn(2, 16, 6, 10), torch.tensor([0.3, 0.9])
    text = TextEmbedding(torch.randn(2, 32, 32), torch.randn(2, 32))
    with torch.no_grad():
        ours = family.velocity(transformer, x, sigma, text)
        wanted = transformer(
            hidden_states=FluxPipeline._pack_latents(x, 2, 16, 6, 10),
            timestep=sigma,
            guidance=torch.ones(2) if model == "flux" else None,
            pooled_projections=text.pooled_BD,
            encoder_hidden_states=text.sequence_BLD,
            txt_ids=torch.zeros(32, 3),
            img_ids=FluxPipeline._prepare_latent_image_ids(2, 3, 5, "cpu", torch.float32),
        ).sample
    assert family.guided == (model == "flux")
    assert torch.equal(ours, FluxPipeline._unpack_latents(wanted, 48, 80, 8))


def test_sigma_reaches_the_time_embedding_unrounded(flux_bf16):
    """In bf16 0.7123 * 1000 would be 712, and what x_sigma was made with 712.3."""
    transformer = flux_bf16.load_transformer()
    seen = []
    transformer.time_text_embed.time_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    text = TextEmbedding(torch.randn(1, 32, 32).bfloat16(), torch.randn(1, 32).bfloat16())
    sigma = torch.tensor([0.7123])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        flux_bf16.velocity(transformer, torch.randn(1, 16, 8, 8), sigma, text)
    assert seen[0].dtype == torch.float32
    assert torch.equal(seen[0], sigma * 1000)
    assert not transformer.time_text_embed._forward_pre_hooks


@pytest.mark.parametrize(("model", "folder"), [("flux", "tiny_flux"), ("schnell", "tiny_schnell")])
def test_drawing_equals_the_stock_pipeline_bit_for_bit(model, folder, request):
    family, path = request.getfixturevalue(model), request.getfixturevalue(folder)
    shot = Shot("a red cup", seed=7, width=64, height=96, steps=3, guidance=3.5)
    picture = draw(family.pipeline(family.load_transformer()), shot, family.encode_text([shot.prompt]))
    stock = FluxPipeline.from_pretrained(path, dtype=torch.float32)
    stock.set_progress_bar_config(disable=True)
    wanted = stock(
        "a red cup",
        width=64,
        height=96,
        num_inference_steps=3,
        guidance_scale=3.5,
        max_sequence_length=32,
        generator=torch.Generator().manual_seed(7),
    ).images[0]
    assert picture.size == (64, 96)
    assert np.array_equal(np.asarray(picture), np.asarray(wanted))


def test_kontext_appends_the_reference_at_a_position_of_its_own(kontext):
    """Rows and columns from zero, and 1 before them; only the drawn picture's velocity comes back."""
    transformer = kontext.load_transformer()
    x, reference, sigma = torch.randn(2, 16, 6, 10), torch.randn(2, 16, 4, 8), torch.tensor([0.3, 0.9])
    text = TextEmbedding(torch.randn(2, 32, 32), torch.randn(2, 32))
    packed, ids = [], []
    for picture, (latents, height, width) in enumerate([(x, 6, 10), (reference, 4, 8)]):
        packed.append(FluxKontextPipeline._pack_latents(latents, 2, 16, height, width))
        ids.append(FluxKontextPipeline._prepare_latent_image_ids(2, height // 2, width // 2, "cpu", torch.float32))
        ids[-1][..., 0] = picture
    with torch.no_grad():
        ours = kontext.velocity(transformer, x, sigma, text, reference)
        wanted = transformer(
            hidden_states=torch.cat(packed, dim=1),
            timestep=sigma,
            guidance=torch.ones(2),
            pooled_projections=text.pooled_BD,
            encoder_hidden_states=text.sequence_BLD,
            txt_ids=torch.zeros(32, 3),
            img_ids=torch.cat(ids),
        ).sample[:, :15]
        assert not torch.equal(ours, kontext.velocity(transformer, x, sigma, text))
    assert torch.equal(ours, FluxKontextPipeline._unpack_latents(wanted, 48, 80, 8))


@pytest.mark.parametrize("edited", [False, True])
def test_kontext_draws_as_the_stock_pipeline_does(kontext, tiny_kontext, edited, tmp_path):
    shot = Shot("bluer", seed=7, width=64, height=96, steps=2, guidance=2.5)
    reference = Image.effect_noise((64, 96), 90).convert("RGB") if edited else None
    if edited:
        reference.save(tmp_path / "before.png")
        shot = replace(shot, reference=str(tmp_path / "before.png"))
    text = kontext.encode_text([shot.prompt])
    picture = draw(kontext.pipeline(kontext.load_transformer()), shot, text)
    stock = FluxKontextPipeline.from_pretrained(tiny_kontext, dtype=torch.float32)
    stock.set_progress_bar_config(disable=True)
    wanted = stock(
        image=reference,
        prompt="bluer",
        width=64,
        height=96,
        max_area=64 * 96,
        _auto_resize=False,
        num_inference_steps=2,
        guidance_scale=2.5,
        max_sequence_length=32,
        generator=torch.Generator().manual_seed(7),
    ).images[0]
    assert picture.size == (64, 96)
    assert np.array_equal(np.asarray(picture), np.asarray(wanted))


def test_parts_are_loaded_only_when_needed_and_let_go(flux):
    assert not flux.parts.kept
    flux.encode_image(torch.zeros(1, 3, 32, 32))
    assert list(flux.parts.kept) == ["vae torch.float32"]
    flux.release()
    assert not flux.parts.kept
    assert not any(weight.requires_grad for weight in flux.load_transformer().parameters())
    assert not flux.parts.kept


def test_a_damaged_weight_file_is_named(tiny_flux, tmp_path):
    copy = shutil.copytree(tiny_flux, tmp_path / "damaged")
    weights = next((copy / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:5000])
    family = open_family(str(copy), device=CPU, dtype=torch.float32)
    with pytest.raises(ModelError, match=r"transformer of .* cannot be read") as caught:
        family.load_transformer()
    assert "download" in caught.value.hint
