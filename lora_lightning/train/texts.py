"""What a caption becomes before it is embedded: with its trigger word, in other orders, with its class word."""

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lora_lightning.datasets.editing import insert_trigger
from lora_lightning.errors import InputError

MARK = "[trigger]"
MOST_WORDS_OF_A_TAG = 5
TRIES_AN_ORDER = 10


def fill(text: str, trigger: str) -> str:
    """The text with the trigger word for each `[trigger]`, a mark that ai-toolkit's captions hold.

    Raises:
        InputError: there is such a mark and no trigger word.
    """
    if MARK in text and not trigger:
        raise InputError(
            f"{text[:60]!r} says {MARK}, and the recipe has no trigger word", "Set trigger=WORD, or edit the text."
        )
    return text.replace(MARK, trigger)


def with_trigger(caption: str, trigger: str) -> str:
    """A caption that holds the trigger word as a whole word; it is put first where it is missing."""
    filled = fill(caption, trigger)
    return insert_trigger(trigger).change(filled) if trigger else filled


def has_trigger(caption: str, trigger: str) -> bool:
    """Whether the caption holds the trigger word, or its mark, as a whole word in any case."""
    wanted, text = trigger.lower(), caption.lower()
    return MARK in caption or (wanted in text and word(wanted).search(text) is not None)


def with_class_word(caption: str, trigger: str, class_word: str) -> str:
    """The caption with the class word where it says the trigger; without one, the trigger and its comma are left out.

    `TOK, a cat` becomes `animal, a cat`, or `a cat`.
    """
    if class_word:
        return word(trigger).sub(lambda _: class_word, caption)
    return without_trigger(caption, trigger)


def without_trigger(text: str, trigger: str) -> str:
    """The text less the trigger word, and less the commas and spaces it leaves behind."""
    parts = (" ".join(part.split()) for part in word(trigger).sub("", text).split(","))
    return ", ".join(part for part in parts if part)


def word(trigger: str) -> re.Pattern[str]:
    """Finds the trigger as a whole word: not in `TRIGGERS`."""
    return re.compile(rf"(?<!\w){re.escape(trigger)}(?!\w)")


@dataclass(frozen=True)
class Wording:
    """Which texts a picture may be shown with.

    Attributes:
        orders: further orders of a caption's comma-separated tags, at most.
        keep: so many tags stay in front.
        seed: the same gives the same orders.
    """

    orders: int = 0
    keep: int = 1
    seed: int = 0

    def of(self, captions: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """For each caption of a picture: itself, then other orders of its tags, all different.

        A caption in sentences has no other order: shuffling its clauses would change what it says.
        """
        return tuple(self._orders(caption) for caption in captions)

    def _orders(self, caption: str) -> tuple[str, ...]:
        tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
        if any(len(tag.split()) > MOST_WORDS_OF_A_TAG for tag in tags):
            return (caption,)
        digest = hashlib.sha256(f"{self.seed} {caption}".encode()).digest()
        draw = random.Random(int.from_bytes(digest[:7], "little"))
        found = {caption: None}
        for _ in range(TRIES_AN_ORDER * self.orders):
            if len(found) > self.orders:
                break
            found.setdefault(", ".join([*tags[: self.keep], *draw.sample(tags[self.keep :], len(tags[self.keep :]))]))
        return tuple(found)
