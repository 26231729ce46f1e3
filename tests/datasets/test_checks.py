import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lightning.datasets import checks, similar
from lora_lightning.datasets.filtering import select
from lora_lightning.datasets.query import parse
from lora_lightning.datasets.store import Picture
from lora_lightning.datasets.tokens import meters

METERS = meters("absent/model")
GOOD = (
    "A wide photo of two dogs on a beach. The larger one, brown and wet, leaps over a low wave; the other looks on.",
    "MYSTYLE, a bowl of fruit by a window, soft light from the left, a fly on the rim",
    "dog, beach, brown fur, wet fur, wave, blue sky, white sky, pale sky",
    'A sign that reads "I can\'t stop." A man in a very, very, very long coat walks past it.',
    "a cat",
    "An old man in a signature hat, in front of a logo wall of the shop. He is seen from below.",
)


def flagged(*captions, **options):
    pictures = [Picture(i, f"{i}", f"{i}.png", f"{i}", 9, 9, text) for i, text in enumerate(captions)]
    return {check.name: check for check in checks.run(pictures, METERS, **options)}


@pytest.mark.parametrize("caption", GOOD)
def test_good_captions_pass_every_general_check(caption):
    assert {name for name, check in flagged(caption).items() if check.count} == set()


@pytest.mark.parametrize(
    ("name", "caption", "passage"),
    [
        ("loop", "A dog on a red car on a red car on a red car.", "on a red car on a red car on a red car."),
        ("loop", "blue sky, blue sky, blue sky, a dog", "blue sky, blue sky, blue sky,"),
        ("loop", "a dog dog dog dog dog", "dog dog dog dog dog"),
        ("loop", "A dog runs on sand. It is sunny. A dog runs on sand!", "A dog runs on sand!"),
        ("loop", "A dog !!!!!!!!!!!!!!!!", "!!!!!!!!!!!!!!!!"),
        ("truncated", "A dog runs. The sky behind it has", "The sky behind it has"),
        ("truncated", "a dog in the", "a dog in the"),
        ("truncated", "a dog, brown fur,", "a dog, brown fur,"),
        ("refusal", "I'm sorry, but I can't help with that.", "I'm sorry, I can't help"),
        ("refusal", "I\u2019m unable to describe people.", "I\u2019m unable"),
        ("refusal", "As an AI, I describe no faces.", "As an AI"),
        ("meta", "This image shows a dog.", "This image shows"),
        ("meta", "A dog. In the picture we see a wave.", "In the picture, we see"),
        ("meta", "Sure! Here is a caption: a dog", "Sure!"),
        ("hedge", "A man who appears to be a cook, possibly at work.", "appears to, possibly"),
        ("watermark", "A dog. A signature in the corner and a watermark.", "signature, watermark"),
        ("watermark", "A dog with JPEG artifacts.", "JPEG artifacts"),
        ("leftover", "A photo of {name} and [trigger].", "{name}, [trigger]"),
    ],
)
def test_each_check_finds_its_passage(name, caption, passage):
    found = flagged("a cat", caption)[name]
    assert (found.count, found.ids, found.passages[1]) == (1, [1], passage)
    assert found.title
    assert found.explanation


def test_the_trigger_is_looked_for_as_a_whole_word_in_its_spelling():
    found = flagged("a man walks", "a woman walks", "a Man walks", "man, a man walks", "", trigger="man")
    assert found["no-trigger"].ids == [1, 2]
    assert found["doubled-trigger"].passages == {3: "man, man"}
    assert "no-trigger" not in flagged("a dog")


def test_style_words_matter_for_a_style_only():
    caption = "A watercolor painting of a dog in the style of Monet"
    assert "style" not in flagged(caption, kind="character")
    found = flagged(caption, "A dog, retrofitted stylus", kind="style")["style"]
    assert found.passages == {0: "watercolor, painting, style of"}


def test_lengths_are_those_of_the_model():
    found = flagged("word " * 57, "word " * 379, "a dog.")
    assert found["clip"].passages == {0: "79 tokens, 2 too many", 1: "514 tokens, 437 too many"}
    assert found["t5"].passages == {1: "513 tokens, 1 too many"}
    assert "estimate" in found["t5"].explanation


def test_near_identical_captions_name_each_other():
    long = "A brown dog leaps over a low wave near two children who hold a bright yellow kite"
    found = flagged(long, long.replace("brown", "black") + ".", "A cat.", "The cat", "a dog", long.upper())["alike"]
    assert set(found.ids) == {0, 1, 2, 3, 5}
    assert found.passages[2] == "nearly the same as that of 3.png"


def test_the_filter_takes_what_the_checks_found():
    pictures = [Picture(1, "1", "1", "1", 9, 9, "This image shows a dog."), Picture(2, "2", "2", "2", 9, 9, "a dog")]
    flags = {check.name: check.ids for check in checks.run(pictures, METERS)}
    assert [p.id for p in select(pictures, parse("flagged:meta"), METERS, flags)] == [1]


def test_nothing_to_check_is_no_finding():
    assert all(check.count == 0 for check in flagged("", "", trigger="x", kind="style").values())


VOCABULARY = [f"word{i}" for i in range(14)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from(VOCABULARY), max_size=14), max_size=6))
def test_groups_agree_with_comparing_every_pair(captions):
    def near(a, b):
        a, b = set(a), set(b)
        if not a or not b:
            return False
        rich = max(len(a), len(b)) >= similar.FEWEST_WORDS
        one_added = rich and max(len(a - b), len(b - a)) <= 1
        return a == b or one_added

    expected = {frozenset({i}) for i in range(len(captions))}
    for i in range(len(captions)):
        for j in range(i):
            if near(captions[i], captions[j]):
                joined = [part for part in expected if i in part or j in part]
                expected = (expected - set(joined)) | {frozenset().union(*joined)}
    found = similar.groups([" the ".join(words) for words in captions])
    assert {frozenset(group) for group in found} == {part for part in expected if len(part) > 1}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=20, unique=True), st.integers(0, 14))
def test_a_phrase_said_three_times_or_more_is_a_loop(words, before):
    intro = [f"intro{i}" for i in range(before)]
    assert checks.loop(" ".join(intro + words)) == ""
    repeats = 6 if len(words) == 1 else 4
    assert checks.loop(" ".join(intro + words * repeats)) if len(words) > 1 else checks.loop(" ".join(words * repeats))
