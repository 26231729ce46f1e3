"""What to ask a captioner for each kind of LoRA; importing this needs no torch.

The rule behind them: caption what should stay promptable; what captions leave out hangs on the trigger word. Not all
agree (docs/captions.md), so these are starting points.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lora_lightning.caption.prompts import BOOKS, UNTRAINED
from lora_lightning.errors import InputError

_PLAIN = (
    "Write in plain, definite language, without phrases such as 'this image shows', guesses, quality words, watermarks "
    "or anything that is absent."
)


@dataclass(frozen=True)
class Preset:
    """A prompt for one kind of LoRA.

    Attributes:
        why: what it asks for and leaves out.
        length: of JoyCaption's lengths; `extras` likewise.
        instruction: for captioners that follow free instructions.
    """

    why: str
    length: str
    extras: tuple[str, ...]
    instruction: str


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "person": Preset(
            "Pose, clothes, place and light stay promptable; face and body hang on the trigger word.",
            "medium-length",
            ("name", "changeable only", "lighting", "shot size", "no meta phrases"),
            "Describe this picture of {name} in two to four sentences. Call the person {name}. Describe the pose, the "
            "expression, the clothes, the hairstyle, the surroundings, the light and the framing. Leave out the face, "
            f"eyes, hair colour, skin, body and age. {_PLAIN}",
        ),
        "style": Preset(
            "Content only: whatever names the medium, the style or the mood would keep the style from the trigger.",
            "medium-length",
            ("no mood", "no artist", "no text", "no resolution", "no meta phrases"),
            "Describe what is depicted in two to four sentences: subjects, actions, objects, colours and places. Do "
            f"not name the medium, the style, the technique, the artist or the mood. {_PLAIN}",
        ),
        "object": Preset(
            "Surroundings, angle and light stay promptable; what the thing looks like hangs on the trigger word.",
            "medium-length",
            ("camera angle", "lighting", "depth of field", "no mood", "no meta phrases"),
            "Describe this picture of {name} in two to four sentences. Call the main object {name} and do not describe "
            "its shape, material, parts or colours. Describe where it is, what surrounds it, who uses it, the angle "
            f"and the light. {_PLAIN}",
        ),
        "concept": Preset(
            "Everything around the concept is described; the concept itself hangs on the trigger word.",
            "long",
            ("lighting", "camera angle", "no mood", "no meta phrases"),
            "Describe this picture in three to five sentences: subjects, clothes, objects, surroundings, colours, "
            f"framing and light. Call what is special about it {{name}} and do not explain it. {_PLAIN}",
        ),
    }
)
TASKS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")
"""What Florence-2 can be asked; the token must be all of the prompt."""
NAMELESS = "the subject"
"""Stands for {name} in an instruction when there is no trigger word."""


def prompt_for(kind: str, captioner: str, trigger: str) -> str:
    """The prompt of a preset in the words that a captioner understands best.

    Args:
        kind: a key of PRESETS.
        captioner: its short name; JoyCaption gets its trained sentences, the others the instruction.
        trigger: the name of the person or thing, or "".
    """
    preset, book = PRESETS[kind], BOOKS.get(captioner)
    if book is None:
        return preset.instruction.replace("{name}", trigger or NAMELESS)
    known = [extra for extra in preset.extras if extra in book.extras and (trigger or extra != "name")]
    return book.compose("Descriptive", preset.length, known, trigger)


def filled(text: str, trigger: str) -> str:
    """A text with the trigger word in its places, {trigger} or {name}.

    Raises:
        InputError: there is a place, and no trigger word.
    """
    for place in ("{trigger}", "{name}"):
        if place in text and not trigger:
            raise InputError(f"{text!r} asks for {place}, and there is no trigger word", "Set trigger=WORD.")
        text = text.replace(place, trigger)
    return text


def advice(captioner: str, prompt: str) -> str:
    """What a captioner will make of a prompt that it cannot follow; empty when all is well.

    Args:
        captioner: its short name; of a folder or Hub id nothing is known.
        prompt: as it will be asked.
    """
    if captioner in BOOKS:
        return "" if BOOKS[captioner].understands(prompt) else UNTRAINED
    if captioner.startswith("florence-2"):
        return "" if prompt in TASKS else f"Florence-2 knows tasks only ({', '.join(TASKS)}) and does the last of them"
    if captioner.startswith("wd-"):
        return "a tagger takes no prompt: its captions are lists of tags"
    if captioner == "blip-2":
        return "BLIP-2 takes no prompt: its captions are short"
    return ""
