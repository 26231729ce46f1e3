import re

from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lightning.datasets.words import STOP_WORDS, finder, frequency

CAPTIONS = [
    "A red car. The red car stands, red car!",
    "A piece of cake on a red car",
    "A red-haired man's toy",
    "red, haired",
    "",
]


def counted(captions, **options):
    return {phrase.text: (phrase.captions, phrase.uses) for phrase in frequency(captions, **options)}


def test_phrases_are_counted_by_caption_and_by_use():
    found = counted(CAPTIONS, fewest=1)
    assert found["red car"] == (2, 4)
    assert found["red"] == (3, 5)
    assert found["piece of cake"] == (1, 1)
    assert found["red-haired man's toy"] == (1, 1)
    assert "of cake" not in found  # begins with a stop word
    assert "car red" not in found  # across a stop
    assert "red haired" not in found
    assert not STOP_WORDS & set(found)


def test_the_most_widespread_come_first_and_rare_ones_are_left_out():
    assert [(p.text, p.captions) for p in frequency(CAPTIONS)] == [("red", 3), ("car", 2), ("red car", 2)]
    assert [p.text for p in frequency(CAPTIONS, most=1)] == ["red", "red car"]


def test_no_words_no_phrases():
    assert frequency([]) == frequency(["", "..."]) == frequency(["the"], fewest=1) == []


def test_a_finder_looks_for_whole_words():
    assert finder("Red  Car")("a red\n car")
    assert not finder("red")("bored red-haired redder")
    assert not finder("red car")("red, car")
    assert finder("red")("bored, so red")
    assert finder("")("anything")
    assert finder("50%_x")("is 50%_x big")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["red", "car", "the", "Dog's", "x-y", ",", "-", "'", "İß", "a_1"]), max_size=9))
)
def test_a_click_on_a_phrase_finds_as_many_captions_as_it_says(rows):
    for glue in (" ", ""):
        captions = [glue.join(row) for row in rows]
        for phrase in frequency(captions, fewest=1, most=1000):
            assert sum(finder(phrase.text)(caption.lower()) for caption in captions) == phrase.captions
            assert not re.search(r"\s{2}", phrase.text)
