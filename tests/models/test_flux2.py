"""FLUX.2 through the family: klein (Qwen3) and dev (Mistral), against diffusers' stock pipelines."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Pipeline
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from PIL import Image

from lora_lightning.models.base import TextEmbedding, open_family
from lora_lightning.models.sampling import Shot, draw
from lora_lightning.train.timesteps import resolution_mu

CPU = torch.device("cpu")
BOTH = pytest.mark.parametrize("model", ["klein", "flux2"])
STOCK = {"klein": Flux2KleinPipeline, "flux2": Flux2Pipeline}
TEXTS = ["a red cup on a table", ""]


@pytest.fixture
def stock(model, request):
    folder = request.getfixturevalue(f"tiny_{model}")
    pipeline = STOCK[model].from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def family(model, request):
    return request.getfixturevalue(model)


@BOTH
def test_text_is_three_hidden_layers_side_by_side_as_the_stock_pipeline_stacks_them(family, stock, model):
    ours = family.encode_text(TEXTS)
    with torch.no_grad():
        wanted, _ = stock.encode_prompt(TEXTS, max_sequence_length=48)
        layers = (9, 18, 27) if model == "klein" else (10, 20, 30)
        reader = stock.tokenizer
        if model == "klein":
            chat = [{"role": "user", "content": TEXTS[0]}]
            text = reader.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=False)
            tokens = reader(text, padding="max_length", max_length=48, truncation=True, return_tensors="pt")
            states = stock.text_encoder(**tokens, output_hidden_states=True).hidden_states
            assert torch.equal(ours.sequence_BLD[:1], torch.cat([states[layer] for layer in layers], dim=-1))
    assert ours.sequence_BLD.shape == (2, 48, 3 * 16)
    assert ours.pooled_BD.shape == (2, 0)
    assert torch.equal(ours.sequence_BLD, wanted)


@BOTH
def test_a_picture_becomes_latents_normalised_by_the_batch_statistics(family, stock):
    pixels = torch.rand(1, 3, 48, 80) * 2 - 1
    posterior = family.encode_image(pixels)
    with torch.no_grad():
        wanted = stock._encode_vae_image(pixels, None)
    assert posterior.mean_BCHW.shape == (1, 32, 6, 10)
    assert torch.allclose(Flux2Pipeline._patchify_latents(posterior.mean_BCHW), wanted, atol=1e-6)
    vae: AutoencoderKLFlux2 = stock.vae
    with torch.no_grad():
        std = vae.encode(pixels).latent_dist.std
    scale = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt().view(1, -1, 1, 1)
    patches = Flux2Pipeline._patchify_latents(std) / scale
    assert torch.allclose(Flux2Pipeline._patchify_latents(posterior.std_BCHW), patches, atol=1e-6)


def asked(transformer, x, sigma, text, guided, reference=None):
    """The velocity by diffusers' own packing and positions."""
    latents = Flux2Pipeline._patchify_latents(x)
    tokens, ids = Flux2Pipeline._pack_latents(latents), Flux2Pipeline._prepare_latent_ids(latents)
    if reference is not None:
        patches = Flux2Pipeline._patchify_latents(reference)
        tokens = torch.cat([tokens, Flux2Pipeline._pack_latents(patches)], dim=1)
        ids = torch.cat([ids[:1], Flux2Pipeline._prepare_image_ids([patches[:1]])], dim=1)
    with torch.no_grad():
        estimate = transformer(
            hidden_states=tokens,
            timestep=sigma,
            guidance=torch.ones(len(x)) if guided else None,
            encoder_hidden_states=text.sequence_BLD,
            txt_ids=Flux2Pipeline._prepare_text_ids(text.sequence_BLD),
            img_ids=ids,
        ).sample[:, : latents.shape[2] * latents.shape[3]]
    spread = Flux2Pipeline._unpack_latents_with_ids(estimate, Flux2Pipeline._prepare_latent_ids(latents))
    return Flux2Pipeline._unpatchify_latents(spread)


@BOTH
@pytest.mark.parametrize("edited", [False, True])
def test_velocity_is_what_the_transformer_says(family, model, edited):
    transformer = family.load_transformer()
    x, sigma = torch.randn(2, 32, 6, 10), torch.tensor([0.3, 0.9])
    text = TextEmbedding(torch.randn(2, 20, 48), torch.zeros(2, 0))
    reference = torch.randn(2, 32, 8, 4) if edited else None
    with torch.no_grad():
        ours = family.velocity(transformer, x, sigma, text, reference)
    assert family.guided == (model == "flux2")
    assert torch.equal(ours, asked(transformer, x, sigma, text, family.guided, reference))
    if edited:
        with torch.no_grad():
            assert not torch.equal(ours, family.velocity(transformer, x, sigma, text))


@BOTH
def test_sigma_reaches_the_time_embedding_unrounded(model, request):
    folder = request.getfixturevalue(f"tiny_{model}")
    family = open_family(str(folder), device=CPU, dtype=torch.bfloat16)
    transformer = family.load_transformer()
    seen = []
    embed = transformer.time_guidance_embed.time_proj
    embed.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].float()))
    text = TextEmbedding(torch.randn(1, 20, 48).bfloat16(), torch.zeros(1, 0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        family.velocity(transformer, torch.randn(1, 32, 8, 8), torch.tensor([0.7123]), text)
    assert torch.equal(seen[0], torch.tensor([0.7123]) * 1000)
    assert [time.item() for time in seen[1:]] == ([1000.0] if model == "flux2" else [])
    assert not embed._forward_pre_hooks


@BOTH
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_drawing_equals_the_stock_pipeline_bit_for_bit(family, stock, guidance):
    shot = Shot("a red cup", seed=7, width=64, height=96, steps=3, guidance=guidance)
    picture = draw(family.pipeline(family.load_transformer()), shot, family.encode_text([shot.prompt]))
    wanted = stock(
        prompt="a red cup",
        width=64,
        height=96,
        num_inference_steps=3,
        guidance_scale=guidance,
        max_sequence_length=48,
        generator=torch.Generator().manual_seed(7),
    ).images[0]
    assert picture.size == (64, 96)
    assert np.array_equal(np.asarray(picture), np.asarray(wanted))


@BOTH
def test_a_picture_is_edited_as_the_stock_pipeline_does(family, stock, tmp_path):
    reference = Image.effect_noise((64, 64), 90).convert("RGB")
    reference.save(tmp_path / "before.png")
    shot = Shot("bluer", seed=7, width=64, height=64, steps=2, guidance=2.0, reference=str(tmp_path / "before.png"))
    pipeline, text = family.pipeline(family.load_transformer()), family.encode_text([shot.prompt])
    wanted = stock(
        image=reference,
        prompt="bluer",
        width=64,
        height=64,
        num_inference_steps=2,
        guidance_scale=2.0,
        max_sequence_length=48,
        generator=torch.Generator().manual_seed(7),
    ).images[0]
    assert np.array_equal(np.asarray(draw(pipeline, shot, text)), np.asarray(wanted))


def test_klein_draws_with_guidance_though_the_captions_came_from_the_cache(klein, tiny_klein):
    """Then nothing was encoded in this process: the empty text is, once, and its encoder let go."""
    shot = Shot("a red cup", seed=7, width=64, height=64, steps=2, guidance=4.0)
    text = open_family(str(tiny_klein), device=CPU, dtype=torch.float32).encode_text([shot.prompt])
    pipeline = klein.pipeline(klein.load_transformer())
    assert not any("text_encoder" in part for part in klein.parts.kept)
    assert torch.equal(klein.empty_text.sequence_BLD, klein.encode_text([""]).sequence_BLD)
    other = open_family(str(tiny_klein), device=CPU, dtype=torch.float32)
    other.encode_text([shot.prompt])
    same = draw(other.pipeline(other.load_transformer()), shot, text)
    assert np.array_equal(np.asarray(draw(pipeline, shot, text)), np.asarray(same))


@pytest.mark.parametrize("side", [512, 768, 1024])
def test_the_shift_by_resolution_is_that_of_flux2_at_two_hundred_steps(side):
    """Where FLUX.2's own mu, which falls with the number of drawing steps, meets the line that training uses."""
    tokens = (side // 16) ** 2
    assert resolution_mu(tokens) == pytest.approx(compute_empirical_mu(tokens, 200), abs=1e-4)
