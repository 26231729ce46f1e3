import json
import shutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel

from lora_lightning.datasets.tokens import CLIP_LIMIT, T5_LIMIT, T5_LIMIT_SCHNELL, meters

TEXTS = ["", "a dog", "A Dog's Life: ½ dogs, naïve  café 12 —" * 4, "it's 3 o'clock 犬 " * 9, "x" * 300]


@pytest.fixture(scope="module")
def reference(tiny_flux):
    from transformers import CLIPTokenizer, T5TokenizerFast

    clip = CLIPTokenizer.from_pretrained(tiny_flux / "tokenizer")
    t5 = T5TokenizerFast.from_pretrained(tiny_flux / "tokenizer_2")
    return {"clip": clip, "t5": t5}


@pytest.fixture(scope="module")
def published_layout(tmp_path_factory):
    """CLIP's tokenizer as the published FLUX.1 folders hold it: vocab.json and merges.txt."""
    folder = tmp_path_factory.mktemp("published")
    alphabet = sorted(ByteLevel.alphabet())
    merges = [("d", "o"), ("do", "g</w>"), ("c", "a"), ("ca", "f"), ("l", "i"), ("li", "f"), ("lif", "e</w>")]
    pieces = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *map("".join, merges)]
    vocabulary = {piece: id for id, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("name", ["clip", "t5"])
def test_counts_are_those_of_the_models_own_tokenizer(tiny_flux, reference, name):
    meter = getattr(meters(str(tiny_flux)), name)
    assert not meter.estimated
    expected = [len(reference[name](text).input_ids) for text in TEXTS]
    assert meter.counts(TEXTS) == expected
    assert meter.counts(TEXTS[::-1]) == expected[::-1]


def test_clip_in_the_published_layout_counts_alike(published_layout):
    from transformers import CLIPTokenizer

    files = {"vocab": "vocab.json", "merges": "merges.txt"}
    own = CLIPTokenizer(**{name: str(published_layout / "tokenizer" / file) for name, file in files.items()})
    meter = meters(str(published_layout)).clip
    assert not meter.estimated
    assert meter.counts(TEXTS) == [len(own(text).input_ids) for text in TEXTS]
    assert meter.counts(["dog", "a dog's life"]) == [3, 7]  # start, a, dog, ', s, life, end


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet="ab C'1.", max_size=160))
def test_the_cut_is_where_the_encoder_stops_reading(tiny_flux, reference, text):
    for name in ("clip", "t5"):
        meter = getattr(meters(str(tiny_flux)), name)
        reading = meter.read(text)
        assert reading.seen + reading.cut == text
        assert bool(reading.cut) == (reading.tokens > meter.limit)
        kept = reference[name](text, truncation=True, max_length=meter.limit).input_ids
        decoded = reference[name].decode(kept, skip_special_tokens=True)
        assert "".join(decoded.split()).lower() == "".join(reading.seen.split()).lower()


def test_a_space_that_fits_does_not_pull_in_the_letter_behind_it(tiny_flux):
    reading = meters(str(tiny_flux)).t5.read("1" * 29 + " 1")
    assert (reading.tokens, reading.cut) == (33, "1")


def test_limits_are_those_of_the_model(tiny_flux, tiny_schnell, tmp_path):
    assert (meters(str(tiny_flux)).clip.limit, meters(str(tiny_flux)).t5.limit) == (77, 32)  # its tokenizer says 32
    assert meters("black-forest-labs/FLUX.1-dev").t5.limit == T5_LIMIT
    assert meters("black-forest-labs/FLUX.1-schnell").t5.limit == T5_LIMIT_SCHNELL
    copy = tmp_path / "fine-tune-of-something"
    shutil.copytree(tiny_schnell / "transformer", copy / "transformer")
    assert meters(str(copy)).t5.limit == T5_LIMIT_SCHNELL


def test_without_the_files_the_count_is_an_estimate_and_says_so():
    meter = meters("absent/model").clip
    reading = meter.read("word " * 100)
    assert (reading.estimated, reading.limit, reading.tokens) == (True, CLIP_LIMIT, 137)
    assert reading.seen.split() == ["word"] * 55
    assert meter.read("a dog").cut == ""
    assert meters("not a name at all/..").t5.estimated


def test_a_damaged_tokenizer_becomes_an_estimate(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{")
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text("[1")
    assert meters(str(tmp_path)).clip.estimated
    assert meters(str(tmp_path)).clip.limit == CLIP_LIMIT


def test_a_model_in_the_hub_cache_is_found_without_the_network(tiny_flux, tmp_path):
    snapshot = tmp_path / "models--someone--flux" / "snapshots" / "abc"
    shutil.copytree(tiny_flux / "tokenizer_2", snapshot / "tokenizer_2")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    script = """
import sys
from lora_lightning.datasets.tokens import meters
found = meters("someone/flux")
print(found.t5.estimated, found.clip.estimated, found.t5.limit, "transformers" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"HF_HUB_CACHE": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["False", "True", "32", "False"]
