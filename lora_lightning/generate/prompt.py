r"""LoRAs in a prompt: `a fox in the snow <lora:my-style:0.8>`.

    prompt = (text | "\<" | tag)*        tag = "<lora:" name [":" weight] ">"

A name is anything without `<`, `>`, `:` and line breaks; a weight is a number from -4 to 4, and 1 when it is left out.
Tags of one name add up. A tag is taken out together with the blanks before it; `\<` is a literal `<`.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lora_lightning.errors import InputError

MOST = 4.0
_PART = re.compile(r"\\(?P<literal><)|\s*(?P<tag><lora:(?P<inside>[^<>\r\n]*)(?P<end>>?))", re.IGNORECASE)


@dataclass(frozen=True)
class Lora:
    """A LoRA by name and its strength."""

    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class Prompt:
    """What the text encoders read, and the LoRAs that draw it, each once."""

    text: str
    loras: tuple[Lora, ...] = ()


def parse(prompt: str) -> Prompt:
    """Split a prompt into its text and its LoRAs.

    Raises:
        InputError: a tag is unfinished, has no name, or its weight is no number from -4 to 4.
    """
    found: list[Lora] = []

    def take(match: re.Match[str]) -> str:
        if match["literal"]:
            return "<"
        found.append(_lora(match["tag"], match["inside"], finished=bool(match["end"])))
        return ""

    text = _PART.sub(take, prompt).strip()
    return Prompt(text, add(found))


def format(prompt: Prompt) -> str:
    """The prompt as one would type it; `parse` gives the same prompt back."""
    tags = (f"<lora:{lora.name}{_weight(lora.weight)}>" for lora in prompt.loras)
    return " ".join([part for part in (prompt.text.replace("<", "\\<"), *tags) if part])


def add(loras: Iterable[Lora]) -> tuple[Lora, ...]:
    """Each LoRA once, in the order of first mention, with the sum of its weights.

    Raises:
        InputError: a sum is beyond -4 or 4.
    """
    weights: dict[str, float] = {}
    for lora in loras:
        weights[lora.name] = weights.get(lora.name, 0.0) + lora.weight
    return tuple(Lora(name, _checked(weight, f"the weight of {name!r}")) for name, weight in weights.items())


def _lora(tag: str, inside: str, *, finished: bool) -> Lora:
    if not finished:
        raise InputError(f"{tag!r} has no end", "Close it as in <lora:my-style:0.8>, or write \\< for a plain <.")
    name, _, weight = (part.strip() for part in inside.partition(":"))
    if not name:
        raise InputError(f"{tag!r} names no LoRA", "Write it as in <lora:my-style:0.8>.")
    if not weight:
        return Lora(name)
    try:
        return Lora(name, _checked(float(weight), f"the weight in {tag!r}"))
    except ValueError:
        raise InputError(f"the weight in {tag!r} is no number", "Write it as in <lora:my-style:0.8>.") from None


def _checked(weight: float, what: str) -> float:
    if not math.isfinite(weight) or abs(weight) > MOST:
        raise InputError(f"{what} is {weight:g}", "Use a weight from -4 to 4; 1 is the strength it was trained at.")
    return weight


def _weight(weight: float) -> str:
    return "" if weight == 1 else f":{weight!r}".removesuffix(".0")
