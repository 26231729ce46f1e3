"""Sample prompts that carry their own settings: `a fox in snow --seed 7 --size 768x1024 --steps 30 --guidance 3`.

A picture to edit is named as a file or as a picture of the dataset, in quotes where there are blanks: `make it night
--reference "my beach.png"`.
"""

import re
from dataclasses import dataclass

from pydantic import Field, field_validator

from lora_lightning.settings import Settings

OPTION = re.compile(r"""\s--(\w+)(?:[ =]("[^"]+"|\S+))?""")
NAMES = ("seed", "size", "steps", "guidance", "reference")


@dataclass(frozen=True)
class Wanted:
    """A prompt, and those of its settings that are its own."""

    prompt: str
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None
    reference: str | None = None


def parse(text: str) -> Wanted:
    """Read a prompt and the settings behind it.

    Raises:
        ValueError: a setting is unknown, or its value cannot be.
    """
    own: dict[str, float | int | str] = {}
    for name, value in OPTION.findall(f" {text}"):
        if name not in NAMES:
            known = ", ".join(f"--{each}" for each in NAMES)
            raise ValueError(f"{text!r}: there is no --{name}; a prompt may have {known}")
        own |= _read(name, value, text)
    return Wanted(OPTION.sub("", f" {text}").strip(), **own)  # type: ignore[arg-type]


def _read(name: str, value: str, text: str) -> dict[str, float | int | str]:
    try:
        if name == "reference" and value:
            return {name: value.strip('"')}
        if name == "size":
            width, _, height = value.partition("x")
            sides = [int(width), int(height)]
            if all(side % 16 == 0 and 32 <= side <= 4096 for side in sides):
                return dict(zip(("width", "height"), sides, strict=True))
        elif name == "guidance" and 0 <= float(value) <= 30:
            return {name: float(value)}
        elif (name == "seed" and int(value) >= 0) or (name == "steps" and 1 <= int(value) <= 200):
            return {name: int(value)}
    except ValueError:
        pass
    usual = dict(zip(NAMES, ("7", "768x1024 (multiples of 16)", "30", "3.5", "beach.png"), strict=True))[name]
    raise ValueError(f"{text!r}: --{name} {value} cannot be; write such as --{name} {usual}")


class SampleConfig(Settings):
    """The pictures drawn while training, with fixed seeds."""

    prompts: tuple[str, ...] = Field(
        (),
        title="Sample prompts",
        description="Drawn at step 0 and every few steps; a prompt may end in --seed 7 --size 768x1024 --steps 30 "
        "--guidance 3 --reference beach.png.",
    )
    steps: int = Field(20, title="Sampling steps", description="Denoising steps; 4 suits schnell.", ge=1, le=200)
    guidance: float = Field(4.0, title="Guidance", description="Guidance scale of the samples.", ge=0, le=30)
    seed: int = Field(42, title="Sample seed", description="Picture i uses seed + i.", ge=0)
    width: int = Field(1024, title="Width", description="Pixels, a multiple of 16.", ge=32, le=4096, multiple_of=16)
    height: int = Field(1024, title="Height", description="Pixels, a multiple of 16.", ge=32, le=4096, multiple_of=16)

    @field_validator("prompts")
    @classmethod
    def _prompts_can_be_read(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in prompts:
            parse(prompt)
        return prompts
