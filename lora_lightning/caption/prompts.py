"""The wordings that JoyCaption was trained with.

JoyCaption is no general instruction follower (fpgaminer/joycaption, README): it knows the sentences below, and anything
else gives unpredictable captions. Importing this needs no torch.

Sources of the sentences: Beta One, fpgaminer/joycaption_comfyui at 4b920ca, nodes.py; Alpha Two, fpgaminer/joycaption
at 4ce1c5d, README.md. Curly quotes and dashes belong to them.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from lora_lightning.errors import InputError

LENGTHS = ("any", "very short", "short", "medium-length", "long", "very long", *map(str, range(20, 261, 10)))
"""How long a caption should be: in a word, or in words."""

UNTRAINED = "JoyCaption was not trained with this prompt and may ignore it: it knows fixed sentences only"


@dataclass(frozen=True)
class Template:
    """One type of caption, asked for without a length, within `{words}` words, or in a `{length}` way."""

    plain: str
    words: str
    length: str


@dataclass(frozen=True)
class Book:
    """Everything that one version of JoyCaption was trained to understand."""

    types: Mapping[str, Template]
    extras: Mapping[str, str]

    def compose(self, kind: str, length: str = "any", extras: Sequence[str] = (), name: str = "") -> str:
        """One prompt in the trained wording: the type at a length, then the extras in the order given.

        Args:
            kind: of caption, a key of `types`.
            length: one of LENGTHS.
            extras: keys of `extras`.
            name: what the extra `name` calls a person; without one its {name} is left for the job to fill in.

        Raises:
            InputError: a part is unknown; the hint lists those there are.
        """
        _known("caption type", kind, self.types)
        _known("caption length", length, LENGTHS)
        for extra in extras:
            _known("extra", extra, self.extras)
        template = self.types[kind]
        if length == "any":
            sentence = template.plain
        elif length.isdigit():
            sentence = template.words.replace("{words}", length)
        else:
            sentence = template.length.replace("{length}", length)
        return " ".join([sentence, *(self.extras[extra].replace("{name}", name or "{name}") for extra in extras)])

    def understands(self, prompt: str) -> bool:
        """Whether `compose` could have written a prompt."""
        return self._pattern.fullmatch(prompt) is not None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        numbers = "|".join(length for length in LENGTHS if length.isdigit())
        lengths = "|".join(length for length in LENGTHS[1:] if not length.isdigit())
        sentences = [text for t in self.types.values() for text in (t.plain, t.words, t.length)]
        shapes = {"{words}": f"(?:{numbers})", "{length}": f"(?:{lengths})", "{name}": "[^.]+?"}

        def either(texts: Iterable[str]) -> str:
            choices = "|".join(map(re.escape, texts))
            for place, shape in shapes.items():
                choices = choices.replace(re.escape(place), shape)
            return f"(?:{choices})"

        return re.compile(f"{either(sentences)}(?: {either(self.extras.values())})*")


def _known(what: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise InputError(f"there is no {what} {value!r}", f"Choose one of: {', '.join(known)}.")


def _template(start: str, thing: str, within: str = " within {words} words.") -> Template:
    """`Write a THING.`, with the words behind it and the length inside."""
    return Template(f"{start} {thing}.", f"{start} {thing}{within}", f"{start} {{length}} {thing}.")


_STRAIGHTFORWARD = (
    " Begin with the main subject and medium. Mention pivotal elements—people, objects, scenery—using confident, "
    "definite language. Focus on concrete details like color, shape, texture, and spatial relationships. Show how "
    "elements interact. Omit mood and speculative wording. If text is present, quote it exactly. Note any watermarks, "
    "signatures, or compression artifacts. Never mention what's absent, resolution, or unobservable details. Vary your "
    "sentence structure and keep the description concise, without starting with “This image is…” or similar phrasing."
)
_STABLE = "stable diffusion prompt that is indistinguishable from a real stable diffusion prompt."
_DANBOORU = (
    "Generate only comma-separated Danbooru tags (lowercase_underscores). Strict order: `artist:`, `copyright:`, "
    "`character:`, `meta:`, then general tags. Include counts (1girl), appearance, clothing, accessories, pose, "
    "expression, actions, background. Use precise Danbooru syntax. No extra text."
)
_E621 = (
    "comma-separated list of e621 tags in alphabetical order for this image. Start with the artist, copyright, "
    "character, species, meta, and lore tags (if any), prefixed by 'artist:', 'copyright:', 'character:', 'species:', "
    "'meta:', and 'lore:'. Then all the general tags."
)
_RULE34 = (
    "comma-separated list of rule34 tags in alphabetical order for this image. Start with the artist, copyright, "
    "character, and meta tags (if any), prefixed by 'artist:', 'copyright:', 'character:', and 'meta:'. Then all the "
    "general tags."
)
_CRITIC = (
    "Analyze this image like an art critic would with information about its composition, style, symbolism, the use of "
    "color, light, any artistic movement it might belong to, etc."
)
_SHARED = {
    "MidJourney": _template("Write a", "MidJourney prompt for this image"),
    "Booru-like tag list": Template(
        "Write a list of Booru-like tags for this image.",
        "Write a list of Booru-like tags for this image within {words} words.",
        "Write a {length} list of Booru-like tags for this image.",
    ),
    "Art Critic": Template(_CRITIC, _CRITIC + " Keep it within {words} words.", _CRITIC + " Keep it {length}."),
    "Product Listing": _template(
        "Write a", "caption for this image as though it were a product listing", ". Keep it under {words} words."
    ),
    "Social Media Post": _template(
        "Write a",
        "caption for this image as if it were being used for a social media post",
        ". Limit the caption to {words} words.",
    ),
}
_CASUAL = _template("Write a", "descriptive caption for this image in a casual tone")
_BETA_ONE_TYPES = {
    "Descriptive": _template("Write a", "detailed description for this image", " in {words} words or less."),
    "Straightforward": Template(
        "Write a straightforward caption for this image." + _STRAIGHTFORWARD,
        "Write a straightforward caption for this image within {words} words." + _STRAIGHTFORWARD,
        "Write a {length} straightforward caption for this image." + _STRAIGHTFORWARD,
    ),
    "Descriptive (Casual)": _CASUAL,
    "Stable Diffusion Prompt": Template(
        f"Output a {_STABLE}", f"Output a {_STABLE} {{words}} words or less.", f"Output a {{length}} {_STABLE}"
    ),
    "Danbooru tag list": Template(_DANBOORU, _DANBOORU + " {words} words or less.", _DANBOORU + " {length} length."),
    "e621 tag list": Template(
        f"Write a {_E621}", f"Write a {_E621} Keep it under {{words}} words.", f"Write a {{length}} {_E621}"
    ),
    "Rule34 tag list": Template(
        f"Write a {_RULE34}", f"Write a {_RULE34} Keep it under {{words}} words.", f"Write a {{length}} {_RULE34}"
    ),
    **_SHARED,
}
_ALPHA_TWO_TYPES = {
    "Descriptive": _template("Write a", "descriptive caption for this image in a formal tone"),
    "Descriptive (Casual)": _CASUAL,
    "Stable Diffusion Prompt": _template("Write a", "stable diffusion prompt for this image"),
    "Booru tag list": Template(
        "Write a list of Booru tags for this image.",
        "Write a list of Booru tags for this image within {words} words.",
        "Write a {length} list of Booru tags for this image.",
    ),
    **_SHARED,
}
_ALPHA_TWO_EXTRAS = {
    "name": "If there is a person/character in the image you must refer to them as {name}.",
    "changeable only": "Do NOT include information about people/characters that cannot be changed (like ethnicity, "
    "gender, etc), but do still include changeable attributes (like hair style).",
    "lighting": "Include information about lighting.",
    "camera angle": "Include information about camera angle.",
    "watermark": "Include information about whether there is a watermark or not.",
    "JPEG artifacts": "Include information about whether there are JPEG artifacts or not.",
    "camera": "If it is a photo you MUST include information about what camera was likely used and details such as "
    "aperture, shutter speed, ISO, etc.",
    "PG": "Do NOT include anything sexual; keep it PG.",
    "no resolution": "Do NOT mention the image's resolution.",
    "quality": "You MUST include information about the subjective aesthetic quality of the image from low to very "
    "high.",
    "composition": "Include information on the image's composition style, such as leading lines, rule of thirds, or "
    "symmetry.",
    "no text": "Do NOT mention any text that is in the image.",
    "depth of field": "Specify the depth of field and whether the background is in focus or blurred.",
    "light sources": "If applicable, mention the likely use of artificial or natural lighting sources.",
    "no ambiguity": "Do NOT use any ambiguous language.",
    "rating": "Include whether the image is sfw, suggestive, or nsfw.",
    "most important only": "ONLY describe the most important elements of the image.",
}
_BETA_ONE_EXTRAS = _ALPHA_TWO_EXTRAS | {
    "no artist": "If it is a work of art, do not include the artist's name or the title of the work.",
    "orientation": "Identify the image orientation (portrait, landscape, or square) and aspect ratio if obvious.",
    "vulgar": 'Use vulgar slang and profanity, such as (but not limited to) "fucking," "slut," "cock," etc.',
    "blunt": "Do NOT use polite euphemisms—lean into blunt, casual phrasing.",
    "ages": "Include information about the ages of any people/characters when applicable.",
    "shot size": "Mention whether the image depicts an extreme close-up, close-up, medium close-up, medium shot, "
    "cowboy shot, medium wide shot, wide shot, or extreme wide shot.",
    "no mood": "Do not mention the mood/feeling/etc of the image.",
    "vantage height": "Explicitly specify the vantage height (eye-level, low-angle worm’s-eye, bird’s-eye, drone, "  # noqa: RUF001
    "rooftop, etc.).",
    "mention watermark": "If there is a watermark, you must mention it.",
    "no meta phrases": "Your response will be used by a text-to-image model, so avoid useless meta phrases like “This "
    'image shows…”, "You are looking at...", etc.',
}
BOOKS: Mapping[str, Book] = MappingProxyType(
    {
        "joycaption": Book(_BETA_ONE_TYPES, _BETA_ONE_EXTRAS),
        "joycaption-alpha-two": Book(_ALPHA_TWO_TYPES, _ALPHA_TWO_EXTRAS),
    }
)
"""By the captioner's short name. The README recommends Descriptive and Straightforward; it calls the rest unstable."""
