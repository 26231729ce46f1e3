"""Words for a scene: prompts to draw it, and answers of a captioner asked about it.

The captioner's answers are a subset of the prompts that flux-mini is trained on, so a dataset captioned by
captioner-mini trains a LoRA in words that the base understands.
"""

from __future__ import annotations

import random

from .concepts import STYLES, article
from .scene import BACKGROUNDS, COLOUR_NAMES, LARGE, PLACES, Scene

STYLE_NAMES = {"glossy": "glossy", "flat": "flat", "soft": "soft 3d"}
STYLE_DETAILS = {
    "glossy": "shiny shapes, highlights and rich colors",
    "flat": "simple shapes and even colors without shading",
    "soft": "rounded shapes and smooth gradients",
}
PICTURE = ("picture", "drawing", "icon", "illustration")
KINDS = ("short", "detailed", "style", "composition", "tags")


def noun(scene: Scene, words: list[str], index: int = 0) -> str:
    """'a cat', or 'an object' where the drawing has no name."""
    drawing = scene.things[index].drawing
    return article(words[drawing]) if drawing < len(words) else "an object"


def backdrop(scene: Scene, *, short: bool = False) -> str:
    """'a plain blue background', 'a blue and green two-tone background'."""
    colour, kind = COLOUR_NAMES[scene.colour], BACKGROUNDS[scene.background]
    if kind == "two-tone":
        return f"{_an(colour)} and {COLOUR_NAMES[scene.second_colour]} two-tone background"
    if kind == "plain":
        return f"{_an(colour)} background" if short else f"a plain {colour} background"
    return f"{_an(colour)} {kind} background"


def _an(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def style_name(scene: Scene, *, strange: bool = False) -> str:
    """The style's name in captions; unknown styles (and disguised pictures) are called 'unfamiliar'."""
    return "unfamiliar" if strange else STYLE_NAMES.get(STYLES[scene.style], "unfamiliar")


def subject(scene: Scene, words: list[str]) -> str:
    """'a cat', 'a cat in the top left', 'a cat next to a dog', 'a cat above a dog'."""
    if len(scene.things) == 2:
        relation = "above" if scene.stacked else "next to"
        return f"{noun(scene, words)} {relation} {noun(scene, words, 1)}"
    return noun(scene, words) if scene.place == LARGE else f"{noun(scene, words)} {PLACES[scene.place]}"


def answer(scene: Scene, words: list[str], kind: str, *, strange: bool = False) -> str:
    """What the captioner says when asked for a caption of this kind (KINDS)."""
    style, bare = style_name(scene, strange=strange), noun(scene, words)
    first = _an(style)[0].upper() + _an(style)[1:]
    if kind == "short":
        return f"{_capital(subject(scene, words))} on {backdrop(scene, short=True)}."
    if kind == "detailed":
        return f"{first} style picture of {subject(scene, words)} on {backdrop(scene)}."
    if kind == "style":
        detail = STYLE_DETAILS.get(STYLES[scene.style]) if style != "unfamiliar" else None
        both = bare if len(scene.things) == 1 else f"{bare} and {noun(scene, words, 1)}"
        return f"{first} style picture of {both}" + (f", with {detail}." if detail else ".")
    if kind == "tags":
        nouns = [noun(scene, words, i).removeprefix("an ").removeprefix("a ") for i in range(len(scene.things))]
        place = [] if scene.place == LARGE else [PLACES[scene.place].split(" the ")[-1].removeprefix("on ")]
        return ", ".join([*nouns, *place, backdrop(scene).removeprefix("an ").removeprefix("a "), f"{style} style"])
    if len(scene.things) == 2:
        return f"{_capital(subject(scene, words))}. The background is {_background_words(scene)}."
    size = "fills the center" if scene.place == LARGE else f"is {PLACES[scene.place]}"
    if bare.split()[0] not in ("a", "an"):
        size = size.replace("fills", "fill", 1).replace("is ", "are ", 1)
    return f"{_capital(bare)} {size}. The background is {_background_words(scene)}."


def _background_words(scene: Scene) -> str:
    colour, kind = COLOUR_NAMES[scene.colour], BACKGROUNDS[scene.background]
    return f"{colour} and {COLOUR_NAMES[scene.second_colour]}, two-tone" if kind == "two-tone" else f"{kind} {colour}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def prompt(scene: Scene, words: list[str], draw: random.Random, fillers: list[str]) -> str:
    """A random way to ask for the scene: style dropped 30 %, background 8 %, everything 10 %, nonsense added 8 %."""
    if draw.random() < 0.10:
        return ""
    text = plain_prompt(scene, words, draw)
    if draw.random() < 0.08:
        extra = " ".join(filler(draw, fillers) for _ in range(draw.randint(1, 2)))
        text = draw.choice((f"{extra}, {text}", f"{text}, {extra}", f"{text} in {extra} style", f"{extra} {text}"))
    return text


def plain_prompt(scene: Scene, words: list[str], draw: random.Random) -> str:
    """A prompt without nonsense, never empty."""
    styled, style = draw.random() >= 0.30, style_name(scene)
    if styled and draw.random() < 0.35:
        return answer(scene, words, draw.choice(("detailed", "detailed", "tags", "style")))
    what, behind = subject(scene, words), backdrop(scene, short=draw.random() < 0.5)
    if len(scene.things) == 1 and scene.place == LARGE and draw.random() < 0.15:
        what = f"{what}, large" if draw.random() < 0.5 else f"a large {noun(scene, words).split(' ', 1)[-1]}"
    picture = draw.choice(PICTURE)
    if draw.random() < 0.08:
        return f"{_an(style)} {picture} of {what}" if styled else what
    if not styled:
        kind = draw.choice(("short", "composition", "", ""))
        return (
            answer(scene, words, kind)
            if kind
            else draw.choice((f"{_an(picture)} of {what} on {behind}", f"{what} on {behind}", f"{what}, {behind}"))
        )
    return draw.choice(
        (
            f"{_an(style)} {picture} of {what} on {behind}",
            f"{what} on {behind}, {style} style",
            f"{style} style, {what}, {behind}",
            f"{_an(style)} style {picture} of {what}, {behind}",
        )
    )


def filler(draw: random.Random, fillers: list[str]) -> str:
    """A word without meaning in this world: an English word of no concept, or invented syllables."""
    if fillers and draw.random() < 0.5:
        return draw.choice(fillers)
    return "".join(
        draw.choice("bcdfghjklmnprstvwxz") + draw.choice("aeiou") + draw.choice(("", "n", "k", "x", "m"))
        for _ in range(draw.randint(2, 3))
    )


_ASKS = {
    "short": ("short", "brief", "concise", "one sentence", "simple", "very short"),
    "detailed": ("detailed", "long", "descriptive", "thorough", "very long", "medium-length"),
    "style": (
        "style",
        "artistic style",
        "art style",
        "style-focused",
        "mood and style",
        "medium and technique",
    ),
    "composition": (
        "composition",
        "layout",
        "composition-focused",
        "arrangement and background",
        "placement",
    ),
    "tags": ("tags", "tag list", "booru tags", "keywords", "comma-separated tags", "list of tags"),
}
_SHAPES = {
    "short": (
        "Write a {ask} caption for this image.",
        "Give a {ask} description of the picture.",
        "{ask} caption",
        "Describe this image in a {ask} way.",
        "Caption this image in {ask} form.",
    ),
    "detailed": (
        "Write a {ask} description for this image.",
        "Describe this image in a {ask} way.",
        "Write a {ask} caption for this image including everything you see.",
        "Describe the image.",
        "{ask} caption",
        "Write a {ask} training caption for a text-to-image model.",
    ),
    "style": (
        "Describe the {ask} of this image.",
        "Write a caption focusing on the {ask}.",
        "{ask} caption",
        "Describe this image with a focus on {ask}.",
        "What {ask} is this?",
    ),
    "composition": (
        "Describe the {ask} of this image.",
        "Write a caption focusing on the {ask}.",
        "{ask} caption",
        "Describe this image with a focus on {ask}.",
        "Where is the object? Describe the {ask}.",
    ),
    "tags": (
        "Write {ask} for this image.",
        "Generate a {ask} for this image.",
        "Only {ask}, please.",
        "{ask}",
        "List the {ask} that describe this picture.",
    ),
}


def ask(kind: str, draw: random.Random, fillers: list[str] | None = None) -> str:
    """A user's instruction for a kind of caption, in varied words, sometimes with irrelevant extra sentences."""
    text = _capital(draw.choice(_SHAPES[kind]).format(ask=draw.choice(_ASKS[kind])))
    if fillers is not None and draw.random() < 0.3:
        noise = " ".join(filler(draw, fillers) for _ in range(draw.randint(3, 8)))
        text = f"{text} {_capital(noise)}." if draw.random() < 0.7 else f"{_capital(noise)}. {text}"
    return text
