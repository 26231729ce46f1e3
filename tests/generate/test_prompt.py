import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lightning.errors import InputError
from lora_lightning.generate.prompt import Lora, Prompt, add, format, parse

names = st.text(
    st.characters(exclude_characters="<>:\r\n", exclude_categories=["Cs", "Zs", "Zl", "Zp", "Cc"]), min_size=1
)
weights = st.floats(-4, 4)
texts = st.text(st.one_of(st.sampled_from("\\<>:lora \n"), st.characters(exclude_categories=["Cs"]))).map(str.strip)
loras = st.lists(st.builds(Lora, names, weights), max_size=4, unique_by=lambda lora: lora.name).map(tuple)


@pytest.mark.parametrize(
    ("written", "text", "found"),
    [
        ("a fox", "a fox", ()),
        ("a fox <lora:ink>", "a fox", (Lora("ink", 1.0),)),
        ("a fox <lora:ink:0.8>, at night", "a fox, at night", (Lora("ink", 0.8),)),
        ("<lora:my style v1.5:-.5> a fox", "a fox", (Lora("my style v1.5", -0.5),)),
        ("a <LoRA: ink : 2 >fox", "afox", (Lora("ink", 2.0),)),
        ("<lora:a:0.5><lora:b><lora:a:1>", "", (Lora("a", 1.5), Lora("b", 1.0))),
        (r"1 \<lora:x> 2 < 3", "1 <lora:x> 2 < 3", ()),
        ("a <b> c\nd", "a <b> c\nd", ()),
        ("<lora:a:>", "", (Lora("a", 1.0),)),
    ],
)
def test_parse(written, text, found):
    assert parse(written) == Prompt(text, found)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("a <lora:ink", "'<lora:ink' has no end"),
        ("a <lora:ink <lora:b>", "has no end"),
        ("a <lora:>", "names no LoRA"),
        ("a <lora: :1>", "names no LoRA"),
        ("a <lora:ink:strong>", "is no number"),
        ("a <lora:ink:1:2>", "is no number"),
        ("a <lora:ink:nan>", "is nan"),
        ("a <lora:ink:inf>", "is inf"),
        ("a <lora:ink:4.1>", "is 4.1"),
        ("a <lora:ink:3> <lora:ink:3>", "the weight of 'ink' is 6"),
    ],
)
def test_mistakes_are_named_with_a_way_out(written, says):
    with pytest.raises(InputError) as caught:
        parse(written)
    assert says in caught.value.message
    assert caught.value.hint


@given(texts, loras)
def test_what_is_written_is_read_back(text, found):
    assert parse(format(Prompt(text, found))) == Prompt(text, found)


@given(st.text(st.sampled_from("\\<>:lora 1.a"), max_size=30))
def test_any_prompt_is_read_or_refused_and_its_meaning_survives(written):
    try:
        prompt = parse(written)
    except InputError:
        return
    assert parse(format(prompt)) == prompt
    assert all(math.isfinite(lora.weight) and abs(lora.weight) <= 4 for lora in prompt.loras)


def test_equal_names_add_up():
    assert add([Lora("a", 1.5), Lora("b", 1), Lora("a", -1.5)]) == (Lora("a", 0.0), Lora("b", 1.0))
