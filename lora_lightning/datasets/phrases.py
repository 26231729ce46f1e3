"""Phrases that give a bad caption away, as patterns; the captions are English."""

import re
from collections.abc import Callable

_PICTURE = r"(?:image|photo|photograph|picture|snapshot)"
_QUOTE = r"(?:'|\u2019)"

META = re.compile(
    rf"\b(?:this|the) {_PICTURE} (?:shows|depicts|features|displays|captures|contains|presents|portrays|showcases|is)\b"
    r"|\bthis (?:illustration|painting|artwork|drawing|scene|render) (?:shows|depicts|features|captures|is)\b"
    rf"|\bin (?:this|the) {_PICTURE}\b|\b(?:can be|is|are) seen in (?:this|the) {_PICTURE}\b"
    r"|\byou are looking at\b|\bwe (?:can )?see\b"
    rf"|^(?:sure|certainly|of course)[,!.]|^here(?:{_QUOTE}s| is) (?:a|an|the|your) |^(?:caption|description|prompt):",
    re.IGNORECASE,
)
REFUSAL = re.compile(
    rf"^(?:i{_QUOTE}m|i am) (?:sorry|unable|not able)\b|^(?:sorry|unfortunately),? i\b|\bas an ai\b"
    rf"|\bi (?:can{_QUOTE}t|cannot|can not|won{_QUOTE}t|will not|am unable to|am not able to)"
    r" (?:help|assist|describe|provide|identify|generate|create|comply|fulfil|continue)\b",
    re.IGNORECASE,
)
HEDGE = re.compile(
    r"\b(?:appears? to|seems? to|possibly|perhaps|presumably|probably|likely|maybe|might be|may be|could be"
    r"|suggest(?:s|ing)|what (?:looks|appears)|hard to (?:tell|say)|unclear)\b",
    re.IGNORECASE,
)
WATERMARK = re.compile(
    r"\bwater-?mark(?:s|ed)?\b|\b(?:compression|jpe?g) artifacts?\b|\bcopyright\b"
    r"|\bsignatures?(?= (?:in|at|on|is|can|near|visible)\b|[.,])|\bsigned by\b"
    r"|\b(?:logo|url|website|username) (?:in|at|on) the (?:bottom|top|lower|upper|corner|left|right)\b",
    re.IGNORECASE,
)
LEFTOVER = re.compile(r"\{[\w ]*\}|\[(?:name|trigger)\]|<(?:name|trigger)>", re.IGNORECASE)
STYLE = re.compile(
    r"\b(?:style of|styli[sz]ed|(?:art|visual|artistic|painterly) style|aesthetic|artwork|illustrat(?:ion|ed)"
    r"|paint(?:ing|ed)|watercolou?r|oil on canvas|acrylic|gouache|drawing|drawn|sketch(?:ed)?|line ?art|engraving"
    r"|etching|lithograph|woodcut|pastel|charcoal|anime|manga|cartoon(?:ish)?|comic|pixel art|digital art|vector art"
    r"|concept art|3d|cgi|render(?:ing|ed)?|photo(?:s|graph(?:s|y|ic)?|realis(?:m|tic))?|cinematic"
    r"|impressionis(?:m|t|tic)|expressionis(?:m|t|tic)|surreal(?:is[mt])?|minimalist|art nouveau|art deco|baroque"
    r"|vintage|retro|brush ?strokes?|moody|masterpiece|mixed media|collage)\b",
    re.IGNORECASE,
)


def finder(pattern: re.Pattern[str]) -> Callable[[str], str]:
    """What a pattern finds in a caption: every passage, or an empty text."""
    return lambda caption: ", ".join(dict.fromkeys(match.group().strip() for match in pattern.finditer(caption)))
