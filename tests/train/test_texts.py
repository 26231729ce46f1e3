"""Captions: the trigger as a whole word, the class word, and other orders of tags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lightning.errors import InputError
from lora_lightning.train.texts import Wording, fill, has_trigger, with_class_word, with_trigger


@pytest.mark.parametrize(
    ("caption", "wanted"),
    [
        ("a photo of [trigger], smiling", "a photo of TOK, smiling"),
        ("[trigger] and [trigger]", "TOK and TOK"),
        ("a cat", "TOK, a cat"),
        ("a TOKEN of love", "TOK, a TOKEN of love"),
        ("a tok cat", "a TOK cat"),
    ],
)
def test_the_trigger_is_there_as_a_whole_word(caption, wanted):
    assert with_trigger(caption, "TOK") == wanted
    assert has_trigger(wanted, "TOK")


def test_a_part_of_a_word_is_no_trigger():
    assert not has_trigger("a TOKEN of love", "TOK")
    assert has_trigger("[trigger], a cat", "TOK")


def test_a_mark_without_a_trigger_is_refused():
    assert fill("a cat", "") == "a cat"
    with pytest.raises(InputError, match="no trigger word"):
        fill("a photo of [trigger]", "")


@pytest.mark.parametrize(
    ("caption", "class_word", "wanted"),
    [
        ("TOK, a TOKEN cat", "animal", "animal, a TOKEN cat"),
        ("TOK, a cat", "", "a cat"),
        ("a TOK cat, TOK", "", "a cat"),
        ("a cat", "animal", "a cat"),
        ("", "animal", ""),
    ],
)
def test_the_class_word_stands_for_the_trigger(caption, class_word, wanted):
    assert with_class_word(caption, "TOK", class_word) == wanted


@given(
    st.lists(st.text("abc ", min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=8),
    st.integers(0, 12),
    st.integers(0, 4),
    st.integers(0, 99),
)
def test_orders_are_different_bounded_and_of_the_same_tags(tags, count, keep, seed):
    caption = ", ".join(" ".join(tag.split()) for tag in tags)
    (orders,) = Wording(count, keep, seed).of([caption])
    assert orders[0] == caption
    assert 1 <= len(orders) == len(set(orders)) <= 1 + count
    assert Wording(count, keep, seed).of([caption]) == (orders,)
    for order in orders:
        assert sorted(order.split(", ")) == sorted(caption.split(", "))
        assert order.split(", ")[:keep] == caption.split(", ")[:keep]


def test_as_many_orders_as_wanted_and_others_for_another_seed():
    caption = "TOK, " + ", ".join("abcdefgh")
    (orders,) = Wording(8, 1, 0).of([caption])
    assert len(orders) == 9
    assert set(Wording(8, 1, 1).of([caption])[0]) & set(orders) == {caption}


def test_sentences_are_not_shuffled():
    prose = "TOK, a man who walks along the shore, his coat open, at dusk"
    assert Wording(8).of([prose, "TOK, shore, dusk"])[0] == (prose,)
    assert len(Wording(8, 0).of([prose, "TOK, shore, dusk"])[1]) == 6
