import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from lora_lightning.caption.base import Request, Sampling
from lora_lightning.caption.captioners.llava import build
from lora_lightning.datasets.images import open_rgb
from lora_lightning.errors import ModelError

CPU = torch.device("cpu")
GREEDY = Sampling(temperature=0, max_tokens=8)
PROMPTS = ("Write a short caption.", "Write a long detailed description for this image.", "Tags?")


@pytest.fixture(scope="module")
def requests(photos):
    return [Request(open_rgb(photos[2 + seed]), prompt, seed) for seed, prompt in enumerate(PROMPTS)]


@pytest.fixture
def folder(tiny_captioner, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tiny_captioner, tmp_path / "captioner")


def test_the_conversation_is_joycaptions_own(captioner):
    assert captioner.text("Write a short caption.") == (
        "<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful image captioner.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n"
        "<|reserved_special_token_70|><image><|reserved_special_token_71|>Write a short caption.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_rows_are_padded_on_the_left_and_hold_one_picture_each(captioner, requests):
    inputs = captioner.inputs(requests)
    padded = inputs["attention_mask"] == 0
    assert padded.any(dim=1).sum() == 2
    assert not padded[:, -1].any()
    assert ((inputs["input_ids"] == captioner.tokenizer.convert_tokens_to_ids("<image>")).sum(dim=1) == 16).all()


def test_padding_on_the_right_is_noticed(captioner, requests, monkeypatch):
    monkeypatch.setattr(captioner.tokenizer, "padding_side", "right")
    with pytest.raises(AssertionError, match="left"):
        captioner.inputs(requests)


def test_pixels_are_resized_with_lanczos_and_scaled_to_minus_one_to_one(captioner, requests):
    pixels = captioner.inputs(requests)["pixel_values"]
    for picture, request in zip(pixels, requests, strict=True):
        small = np.asarray(request.image.resize((56, 56), Image.Resampling.LANCZOS), dtype=np.float32)
        np.testing.assert_allclose(picture.permute(1, 2, 0), small / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.7, 0.9, 8), Sampling(1.5, 1.0, 8)], ids=str)
def test_a_batch_gives_what_each_picture_gives_alone(captioner, requests, sampling):
    together = captioner.describe(requests, sampling)
    assert together == [captioner.describe([request], sampling)[0] for request in requests]
    assert len(set(together)) == len(together)


def test_greedy_equals_transformers_own_greedy_search(captioner, requests):
    request = requests[0]
    inputs = captioner.processor(
        text=captioner.text(request.prompt), images=request.image, return_tensors="pt", resample=1
    )
    ids = captioner.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    expected = captioner.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert captioner.describe([request], GREEDY) == [expected]


def test_seeds_change_what_is_sampled_but_not_what_is_greedy(captioner, requests):
    image, prompt = requests[0].image, requests[0].prompt
    seeded = [Request(image, prompt, seed) for seed in range(4)]
    assert len(set(captioner.describe(seeded, Sampling(1.0, 1.0, 8)))) == 4
    assert len(set(captioner.describe(seeded, GREEDY))) == 1


def _add_bos_in_tokenizer(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    bos = "<|begin_of_text|>"
    tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def _add_bos_in_template(folder):
    template = folder / "chat_template.jinja"
    template.write_text("{{- bos_token }}" + template.read_text())


@pytest.mark.parametrize("ways", [(_add_bos_in_tokenizer,), (_add_bos_in_template,),
                                  (_add_bos_in_tokenizer, _add_bos_in_template)])  # fmt: skip
def test_there_is_one_bos_wherever_it_comes_from(folder, requests, ways):
    for add in ways:
        add(folder)
    changed = build(folder, CPU)
    inputs = changed.inputs(requests)
    assert ((inputs["input_ids"] == changed.tokenizer.bos_token_id).sum(dim=1) == 1).all()


def test_a_template_of_parts_gets_the_picture_as_a_part(folder, requests):
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['role'] | upper }}: "
        "{% for part in m['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
        "{% endfor %} ASSISTANT:"
    )
    changed = build(folder, CPU)
    assert changed.text("What is it?") == "USER: <image>What is it? ASSISTANT:"
    assert changed.describe(requests, GREEDY)


def test_a_prompt_with_the_picture_token_is_refused(captioner):
    with pytest.raises(ModelError, match="one picture") as caught:
        captioner.text("what is <image>?")
    assert "<image>" in caught.value.hint


def test_a_checkpoints_own_sampling_settings_do_not_count(folder, captioner, requests):
    settings = json.loads((folder / "generation_config.json").read_text())
    own = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 3, "repetition_penalty": 5.0}
    (folder / "generation_config.json").write_text(json.dumps(settings | own))
    assert build(folder, CPU).describe(requests, GREEDY) == captioner.describe(requests, GREEDY)


def _truncate(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def _drop_weights(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors.pop(sorted(tensors)[3])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_truncate, "cannot be opened"),
        (_drop_weights, "lacks 1 weights"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be opened"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot be opened"),
    ],
    ids=["truncated", "incomplete", "no weights", "damaged tokenizer"],
)
def test_a_damaged_captioner_is_named(folder, damage, says):
    damage(folder)
    with pytest.raises(ModelError, match=says) as caught:
        build(folder, CPU)
    assert str(folder) in caught.value.message
    assert caught.value.hint


def test_another_architecture_is_named(tiny_flux):
    with pytest.raises(ModelError, match="not a LLaVA"):
        build(tiny_flux / "text_encoder", CPU)
