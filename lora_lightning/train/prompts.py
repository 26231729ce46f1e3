"""Sample prompts that carry their own settings: `a fox in snow --seed 7 --size 768x1024 --steps 30 --guidance 3`."""

import re
from dataclasses import dataclass

OPTION = re.compile(r"\s--(\w+)(?:[ =](\S+))?")
NAMES = ("seed", "size", "steps", "guidance")


@dataclass(frozen=True)
class Wanted:
    """A prompt, and those of its settings that are its own."""

    prompt: str
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None


def parse(text: str) -> Wanted:
    """Read a prompt and the settings behind it.

    Raises:
        ValueError: a setting is unknown, or its value cannot be.
    """
    own: dict[str, float | int] = {}
    for name, value in OPTION.findall(f" {text}"):
        if name not in NAMES:
            known = ", ".join(f"--{each}" for each in NAMES)
            raise ValueError(f"{text!r}: there is no --{name}; a prompt may have {known}")
        own |= _read(name, value, text)
    return Wanted(OPTION.sub("", f" {text}").strip(), **own)  # type: ignore[arg-type]


def _read(name: str, value: str, text: str) -> dict[str, float | int]:
    try:
        if name == "size":
            width, _, height = value.partition("x")
            sides = {"width": int(width), "height": int(height)}
            if all(side % 16 == 0 and 32 <= side <= 4096 for side in sides.values()):
                return dict(sides)
        elif name == "guidance" and 0 <= float(value) <= 30:
            return {name: float(value)}
        elif (name == "seed" and int(value) >= 0) or (name == "steps" and 1 <= int(value) <= 200):
            return {name: int(value)}
    except ValueError:
        pass
    usual = {"seed": "7", "size": "768x1024 (multiples of 16)", "steps": "30", "guidance": "3.5"}[name]
    raise ValueError(f"{text!r}: --{name} {value} cannot be; write such as --{name} {usual}")
