"""The embedded models open by the ordinary calls, and do what they are for."""

import json
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffusers import FluxPipeline  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor  # noqa: E402

from lora_lightning.demo import judge as examiner  # noqa: E402

DEMO = Path(examiner.__file__).parent
MODELS = DEMO / "models"
JUDGE = Path(__file__).parent / "judge"
PROMPTS = (
    "A flat style picture of a mushroom on a plain blue background.",
    "A soft 3d style picture of a rocket on a plain yellow background.",
    "A glossy style picture of a red apple on a plain green background.",
    "A flat style picture of a key on a plain pink background.",
)
CONCEPTS = ("mushroom", "rocket", "red apple", "key")
COLOURS = ("blue", "yellow", "green", "pink")


@pytest.fixture(scope="module")
def pictures():
    pipeline = FluxPipeline.from_pretrained(MODELS / "flux-mini", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    length = pipeline.tokenizer_2.model_max_length
    assert length == 32
    return pipeline(
        list(PROMPTS),
        height=128,
        width=128,
        num_inference_steps=8,
        guidance_scale=3.0,
        max_sequence_length=length,
        generator=torch.Generator().manual_seed(0),
    ).images


def test_flux_mini_is_a_whole_flux_pipeline():
    pipeline = FluxPipeline.from_pretrained(MODELS / "flux-mini")
    config = pipeline.transformer.config
    assert config.guidance_embeds
    assert (config.num_layers, config.num_single_layers, config.in_channels) == (2, 6, 64)
    assert pipeline.vae.config.latent_channels == 16
    assert pipeline.vae_scale_factor == 8
    assert pipeline.transformer.dtype == torch.float16 or pipeline.transformer.dtype == torch.float32


@torch.no_grad()
def test_flux_mini_draws_what_it_is_asked_for(pictures):
    judge, names = examiner.load(JUDGE)
    logits = judge(torch.stack([examiner.pixels(picture) for picture in pictures]))
    concepts = [names.concept[i] for i in logits["concept"].argmax(1)]
    colours = [names.colour[i] for i in logits["colour"].argmax(1)]
    assert sum(a == b for a, b in zip(concepts, CONCEPTS, strict=True)) >= 3, concepts
    assert sum(a == b for a, b in zip(colours, COLOURS, strict=True)) >= 3, colours


def test_the_base_knows_none_of_the_target_styles(pictures):
    judge, names = examiner.load(JUDGE)
    for style in ("ink", "fx"):
        assert examiner.style_probability(judge, names, pictures, style) < 0.2


@torch.no_grad()
def test_captioner_mini_answers_each_kind_of_instruction():
    processor = AutoProcessor.from_pretrained(MODELS / "captioner-mini")
    model = AutoModelForImageTextToText.from_pretrained(MODELS / "captioner-mini", dtype=torch.float32).eval()
    truth = json.loads((DEMO / "data/manifest.json").read_text())["ink-style"]["held_out"][0]
    picture = Image.open(DEMO / "data" / truth["truth"]).convert("RGB")
    asked = [
        "Write a short description.",
        "Write a long detailed description for this image.",
        "Describe the artistic style of this image.",
        "Describe the composition of this image.",
        "Write a list of tags for this image.",
    ]
    texts = [
        processor.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
        for text in asked
    ]
    inputs = processor(text=texts, images=[picture] * 5, return_tensors="pt", padding="longest")
    out = model.generate(**inputs, max_new_tokens=48, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    said = processor.tokenizer.batch_decode(out, skip_special_tokens=True)
    colour = re.search(r"plain (\w+) background", truth["prompt"])[1]
    assert len(set(said)) == 5, said
    assert all(colour in said[i] for i in (0, 1, 3, 4)), said
    assert "style" in said[2]
    assert said[4].count(",") >= 2


@torch.no_grad()
def test_encoder_mini_matches_pictures_and_words(pictures):
    processor = AutoProcessor.from_pretrained(MODELS / "encoder-mini")
    model = AutoModel.from_pretrained(MODELS / "encoder-mini", dtype=torch.float32).eval()
    words = processor(text=[f"a picture of a {concept}" for concept in CONCEPTS], padding=True, return_tensors="pt")
    seen = processor(images=pictures, return_tensors="pt")
    scores = model(**words, **seen).logits_per_image
    assert (scores.argmax(1) == torch.arange(4)).sum() >= 3
    assert model.config.style_layer == 2


def test_weights_fit_the_limits():
    sizes = [path.stat().st_size for path in MODELS.rglob("*") if path.is_file()]
    assert sum(sizes) <= 40_000_000
    assert max(sizes) < 16_000_000


def test_no_file_is_private():
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in MODELS.rglob("*") if path.is_file())
