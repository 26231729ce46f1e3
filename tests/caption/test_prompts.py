import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lightning.caption.presets import PRESETS, prompt_for
from lora_lightning.caption.prompts import BOOKS, LENGTHS
from lora_lightning.errors import InputError

BETA, ALPHA = BOOKS["joycaption"], BOOKS["joycaption-alpha-two"]


@pytest.mark.parametrize(
    ("book", "kind", "length", "prompt"),
    [
        (BETA, "Descriptive", "any", "Write a detailed description for this image."),
        (BETA, "Descriptive", "120", "Write a detailed description for this image in 120 words or less."),
        (BETA, "Descriptive", "very long", "Write a very long detailed description for this image."),
        (ALPHA, "Descriptive", "short", "Write a short descriptive caption for this image in a formal tone."),
        (ALPHA, "Descriptive", "40", "Write a descriptive caption for this image in a formal tone within 40 words."),
        (BETA, "Product Listing", "20", "Write a caption for this image as though it were a product listing. Keep it "
         "under 20 words."),
        (BETA, "Stable Diffusion Prompt", "50", "Output a stable diffusion prompt that is indistinguishable from a "
         "real stable diffusion prompt. 50 words or less."),
        (BETA, "MidJourney", "long", "Write a long MidJourney prompt for this image."),
    ],
)  # fmt: skip
def test_prompts_are_the_trained_sentences(book, kind, length, prompt):
    assert book.compose(kind, length) == prompt


def test_extras_follow_in_the_order_given_and_name_the_person():
    composed = BETA.compose("Straightforward", "any", ["no mood", "name"], "OHWX")
    assert composed.startswith(
        "Write a straightforward caption for this image. Begin with the main subject and medium."
    )
    assert composed.endswith(
        "without starting with “This image is…” or similar phrasing. Do not mention the mood/feeling/etc of the image. "
        "If there is a person/character in the image you must refer to them as OHWX."
    )


def test_both_versions_are_complete():
    assert (len(BETA.types), len(BETA.extras)) == (12, 27)
    assert (len(ALPHA.types), len(ALPHA.extras)) == (9, 17)
    assert len(LENGTHS) == 6 + 25


@given(st.data())
def test_what_is_composed_is_understood_and_nothing_else(data):
    book = data.draw(st.sampled_from([BETA, ALPHA]))
    kind, length = data.draw(st.sampled_from(list(book.types))), data.draw(st.sampled_from(LENGTHS))
    extras = data.draw(st.lists(st.sampled_from(list(book.extras)), unique=True, max_size=4))
    prompt = book.compose(kind, length, extras, "OHWX")
    assert book.understands(prompt)
    assert not book.understands(prompt + " Be brief.")
    assert not book.understands("Please: " + prompt)
    assert not book.understands(prompt.rstrip("."))


@pytest.mark.parametrize(
    "arguments", [("Novel",), ("Descriptive", "25"), ("Descriptive", "any", ["scent"])], ids=["type", "length", "extra"]
)
def test_what_is_unknown_is_named_with_the_choices(arguments):
    with pytest.raises(InputError, match="there is no") as caught:
        BETA.compose(*arguments)
    assert "Choose one of" in caught.value.hint


@pytest.mark.parametrize("kind", PRESETS)
@pytest.mark.parametrize("trigger", ["OHWX", ""])
@pytest.mark.parametrize("captioner", BOOKS)
def test_presets_are_trained_prompts_for_joycaption(kind, trigger, captioner):
    prompt = prompt_for(kind, captioner, trigger)
    assert BOOKS[captioner].understands(prompt)
    assert "{" not in prompt


@pytest.mark.parametrize("kind", PRESETS)
def test_presets_are_instructions_for_the_others(kind):
    assert "{" not in prompt_for(kind, "qwen3-vl", "")
    assert ("OHWX" in prompt_for(kind, "qwen3-vl", "OHWX")) is (kind != "style")
