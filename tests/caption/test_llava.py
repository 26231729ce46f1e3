import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForImageTextToText

from lora_lightning.caption.base import Request, Sampling
from lora_lightning.caption.captioners.llava import Llava, build
from lora_lightning.caption.opening import open_captioner
from lora_lightning.datasets.images import open_rgb
from lora_lightning.errors import ModelError
from tests.caption.conftest import described

CPU = torch.device("cpu")
GREEDY = Sampling(temperature=0, max_tokens=8)
PROMPTS = ("Write a short caption.", "Write a long detailed description for this image.", "Tags?")


@pytest.fixture(scope="module")
def requests(photos):
    return [Request(open_rgb(photos[2 + seed]), prompt, seed, GREEDY) for seed, prompt in enumerate(PROMPTS)]


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


def test_a_prompt_holds_one_picture(captioner, requests):
    for request in requests:
        ids = captioner.inputs(request)["input_ids"][0].tolist()
        assert ids.count(captioner.tokenizer.convert_tokens_to_ids("<image>")) == 16


def test_pixels_are_resized_with_lanczos_and_scaled_to_minus_one_to_one(captioner, requests):
    for request in requests:
        (picture,) = captioner.inputs(request)["pixel_values"]
        small = np.asarray(request.image.resize((56, 56), Image.Resampling.LANCZOS), dtype=np.float32)
        np.testing.assert_allclose(picture.permute(1, 2, 0), small / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.7, 0.9, 8), Sampling(1.5, 1.0, 8)], ids=str)
@pytest.mark.parametrize("size", [2, 3])
def test_a_row_gives_what_each_picture_gives_alone(captioner, requests, sampling, size):
    asked = [replace(request, sampling=sampling) for request in requests]
    together = described(captioner, asked, size)
    assert together == [described(captioner, [request])[0] for request in asked]
    assert len(set(together)) == len(together)


def test_pictures_take_turns_in_few_rows_and_lengths_differ(captioner, requests):
    lengths = [30, 3, 1, 17, 9, 2]
    asked = [
        replace(requests[place % 3], sampling=Sampling(1.5, 1.0, length), seed=place)
        for place, length in enumerate(lengths)
    ]
    answers = described(captioner, asked, size=2)
    assert answers == [described(captioner, [request])[0] for request in asked]
    assert {answer.end for answer in answers} <= {"cut", "done"}


def test_greedy_equals_transformers_own_greedy_search(captioner, requests):
    for request in requests:
        inputs = captioner.processor(
            text=captioner.text(request.prompt), images=request.image, return_tensors="pt", resample=1
        )
        ids = captioner.model.generate(**inputs, max_new_tokens=20, do_sample=False)
        expected = captioner.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        (answer,) = described(captioner, [replace(request, sampling=Sampling(0, 1, 20))])
        assert answer.text == expected


def test_seeds_change_what_is_sampled_but_not_what_is_greedy(captioner, requests):
    image, prompt = requests[0].image, requests[0].prompt
    for sampling, texts in ((Sampling(1.0, 1.0, 8), 4), (GREEDY, 1)):
        seeded = [Request(image, prompt, seed, sampling) for seed in range(4)]
        assert len(set(described(captioner, seeded))) == texts


def test_the_end_of_a_text_ends_its_row(captioner, requests):
    ended = [
        answer
        for seed in range(4)
        for answer in described(captioner, [replace(requests[0], seed=seed, sampling=Sampling(1.5, 1.0, 200))])
        if answer.end == "done"
    ]
    assert ended
    assert all("<|eot_id|>" not in answer.text for answer in ended)


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
    ids = changed.inputs(requests[0])["input_ids"][0].tolist()
    assert ids.count(changed.tokenizer.bos_token_id) == 1


def test_a_template_of_parts_gets_the_picture_as_a_part(folder, requests):
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['role'] | upper }}: "
        "{% for part in m['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
        "{% endfor %} ASSISTANT:"
    )
    changed = build(folder, CPU)
    assert changed.text("What is it?") == "USER: <image>What is it? ASSISTANT:"
    assert described(changed, requests)


def test_a_prompt_with_the_picture_token_is_refused(captioner):
    with pytest.raises(ModelError, match="one picture") as caught:
        captioner.text("what is <image>?")
    assert "<image>" in caught.value.hint


def test_a_checkpoints_own_sampling_settings_do_not_count(folder, captioner, requests):
    settings = json.loads((folder / "generation_config.json").read_text())
    own = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 3, "repetition_penalty": 5.0}
    (folder / "generation_config.json").write_text(json.dumps(settings | own))
    assert described(build(folder, CPU), requests) == described(captioner, requests)


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


def test_the_plugin_is_found_by_the_architecture(tiny_captioner):
    assert isinstance(open_captioner(tiny_captioner, CPU), Llava)


def test_another_architecture_is_named_with_those_that_are_known(tiny_flux):
    with pytest.raises(ModelError, match="is a clip_text_model") as caught:
        open_captioner(tiny_flux / "text_encoder", CPU)
    assert "llava" in caught.value.hint


def _named(model, kind):
    return {name for name, module in model.named_modules() if isinstance(module, kind)}


@pytest.mark.parametrize("quantize", ["int8", "nf4"])
def test_only_the_linears_of_the_language_model_are_quantised(folder, requests, quantize):
    import bitsandbytes as bnb

    config = AutoConfig.from_pretrained(folder)
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.head_dim = 64, 128, 16  # nf4 on a CPU takes multiples of 32 only
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    made = build(folder, CPU, quantize)
    kind = {"int8": bnb.nn.Linear8bitLt, "nf4": bnb.nn.Linear4bit}[quantize]
    quantized = _named(made.model, kind)
    assert quantized == {
        name for name in _named(made.model, torch.nn.Linear) if name.startswith("model.language_model.layers.")
    }
    assert len(quantized) == 2 * 7
    assert all(answer.text for answer in described(made, requests))
