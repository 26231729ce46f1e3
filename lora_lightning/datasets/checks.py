"""Captions that a training should not see: each check says what it looks for, and which captions have it.

Captioners glitch in 1.5 to 3 of 100 captions (JoyCaption's README), mostly loops: in 10,000 that is 150 and more.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from lora_lightning.datasets import phrases, similar
from lora_lightning.datasets.editing import sentences
from lora_lightning.datasets.store import Picture
from lora_lightning.datasets.tokens import Meter, Meters

STYLE = "style"
"""The kind of LoRA whose captions should not name a style."""
LONGEST_LOOP = 20
SENTENCE_WORDS = 5
"""A sentence of that many words does not come twice by chance."""
_STOP = re.compile(r"[.!?…][\"'”\u2019)\]]*$")
_UNFINISHED = re.compile(
    r"[,;:(-]$|\b(?:a|an|and|are|as|at|by|for|from|her|his|in|into|is|its|of|on|or|that|the|their|to|which|while|with)$",
    re.IGNORECASE,
)
_SAME_SIGN = re.compile(r"(\S)\1{9,}")


@dataclass(frozen=True)
class Check:
    """One check of all captions.

    Attributes:
        name: short, as in the filter `flagged:loop`.
        title: for a button.
        explanation: what is wrong with such captions, and what helps.
        passages: by picture number, what was found, in the caption's own words where it has such.
    """

    name: str
    title: str
    explanation: str
    passages: Mapping[int, str]

    @property
    def ids(self) -> list[int]:
        """The pictures whose captions it flags."""
        return list(self.passages)

    @property
    def count(self) -> int:
        """How many those are."""
        return len(self.passages)


def run(pictures: Sequence[Picture], meters: Meters, *, trigger: str = "", kind: str = "") -> list[Check]:
    """All checks that apply; pictures without a caption are not looked at.

    Args:
        pictures: with their captions.
        meters: of the base model.
        trigger: the trigger word; without one it is not looked for.
        kind: of LoRA; for "style" there is a check for words that name a style.
    """
    captioned = [picture for picture in pictures if picture.caption]
    looks = (*_LOOKS, _STYLE_LOOK) if kind == STYLE else _LOOKS
    found = {picture.id: _passages(picture.caption, looks) for picture in captioned}
    checks = [_check(look, {id: passages[look.name] for id, passages in found.items()}) for look in looks]
    checks += [_check(look, {p.id: look.look(p.caption) for p in captioned}) for look in _of_trigger(trigger)]
    return [*checks, _alike(captioned), *(_too_long(captioned, meter) for meter in (meters.clip, meters.t5))]


@dataclass(frozen=True)
class _Look:
    """A check that looks at one caption at a time; `look` gives the passage that it is about, or an empty text."""

    name: str
    title: str
    explanation: str
    look: Callable[[str], str]


@lru_cache(2**15)
def _passages(caption: str, looks: tuple[_Look, ...]) -> Mapping[str, str]:
    """What each check finds in a caption; remembered, since a page asks again after each edit of another one."""
    return {look.name: look.look(caption) for look in looks}


def _check(look: _Look, passages: Mapping[int, str]) -> Check:
    return Check(look.name, look.title, look.explanation, {id: passage for id, passage in passages.items() if passage})


def loop(caption: str) -> str:
    """The words, sentence or sign that a caption repeats without end."""
    if signs := _SAME_SIGN.search(caption):
        return signs.group()
    seen: set[str] = set()
    for sentence in sentences(caption):
        key = sentence.casefold().rstrip(".!? ")
        if key in seen and len(key.split()) >= SENTENCE_WORDS:
            return sentence
        seen.add(key)
    return _repeated(caption.split())


def _repeated(words: Sequence[str]) -> str:
    """A phrase that follows upon itself twice and more; one or two words must fill at least five or six."""
    folded = [word.casefold().rstrip(",.;") for word in words]
    pairs = list(pairwise(folded))
    often = {pair for pair, count in Counter(pairs).items() if count > 2}
    if not often:
        return ""
    last: dict[tuple[str, str], list[int]] = {}
    periods = set()
    for place, pair in enumerate(pairs):
        if pair in often:
            places = last.setdefault(pair, [])
            places.append(place)
            if len(places) > 2 and places[-1] - places[-2] == places[-2] - places[-3] <= LONGEST_LOOP:
                periods.add(places[-1] - places[-2])
    for period in sorted(periods):
        run = 0
        for place in range(len(folded) - period):
            run = run + 1 if folded[place] == folded[place + period] else 0
            if run >= max(2 * period, 4):
                return " ".join(words[place - run + 1 : place + period + 1])
    return ""


def truncated(caption: str) -> str:
    """The last words of a caption that breaks off: of several sentences the last has no stop, or it ends with `of`.

    A single sentence or a list of tags without a stop is whole.
    """
    if _STOP.search(caption):
        return ""
    if _UNFINISHED.search(caption) or len(sentences(caption)) > 1:
        return " ".join(caption.split()[-5:])
    return ""


def _of_trigger(trigger: str) -> list[_Look]:
    if not trigger:
        return []
    word = rf"(?<!\w){re.escape(trigger)}(?!\w)"
    exact, any_case = re.compile(word), re.compile(word, re.IGNORECASE)

    def missing(caption: str) -> str:
        return "" if exact.search(caption) else " ".join(caption.split()[:5])

    def doubled(caption: str) -> str:
        return ", ".join(found) if len(found := any_case.findall(caption)) > 1 else ""

    why = f"It lacks {trigger!r} as a whole word, spelt exactly so: the LoRA does not hang on the word. Insert it."
    return [
        _Look("no-trigger", "Trigger missing", why, missing),
        _Look("doubled-trigger", "Trigger doubled", f"{trigger!r} should be in it once, at the start.", doubled),
    ]


def _alike(captioned: Sequence[Picture]) -> Check:
    passages = {
        captioned[place].id: f"nearly the same as that of {captioned[group[1] if place == group[0] else group[0]].name}"
        for group in similar.groups([picture.caption for picture in captioned])
        for place in group
    }
    explanation = "Another caption has the same words, give or take one: together they teach one thing. Re-roll them."
    return Check("alike", "Nearly identical", explanation, passages)


def _too_long(captioned: Sequence[Picture], meter: Meter) -> Check:
    counts = meter.counts([picture.caption for picture in captioned])
    passages = {
        picture.id: f"{count} tokens, {count - meter.limit} too many"
        for picture, count in zip(captioned, counts, strict=True)
        if count > meter.limit
    }
    guess = " The model's tokenizer is not here: this is an estimate." if meter.estimated else ""
    why = _LONG_WHY[meter.name] + guess
    return Check(meter.name.lower(), f"Over {meter.limit} {meter.name} tokens", why, passages)


_LONG_WHY = {
    "CLIP": "CLIP reads the beginning only, which is fine for FLUX as long as subject and trigger are in it.",
    "T5": "What is behind the limit is lost: the model never sees it. Shorten the caption.",
}
_LOOKS = (
    _Look("loop", "Loop", "The captioner ran in circles. Re-roll it.", loop),
    _Look("truncated", "Breaks off", "It has no end: raise the captioner's token limit and re-roll.", truncated),
    _Look("refusal", "Refusal", "The captioner declined to describe it. Re-roll it.", phrases.finder(phrases.REFUSAL)),
    _Look("meta", "Talks about the picture", "`This image shows` says nothing, and nobody prompts so. Take it out.",
          phrases.finder(phrases.META)),
    _Look("hedge", "Guesses", "`appears to be` describes doubt, not the picture. Make it definite.",
          phrases.finder(phrases.HEDGE)),
    _Look("watermark", "Claims a watermark", "Captioners see watermarks and signatures that are not there. Look, then "
          "remove the sentence.", phrases.finder(phrases.WATERMARK)),
    _Look("leftover", "Placeholder left", "A placeholder such as {name} was never filled in.",
          phrases.finder(phrases.LEFTOVER)),
)  # fmt: skip
_STYLE_LOOK = _Look(
    STYLE,
    "Names a style",
    "A style LoRA learns what its captions leave out: a medium or mood that is named stays with its word.",
    phrases.finder(phrases.STYLE),
)
