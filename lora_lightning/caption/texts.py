"""From what a captioner said to a caption."""

import re

from lora_lightning.caption.base import Answer
from lora_lightning.datasets.names import one_line

_THOUGHTS = re.compile(r"^.*</think>|<think>.*$", re.DOTALL)
_STOP = re.compile(r"[.!?…][\"'”)\]]*(?=\s|$)")


def tidy(answer: Answer) -> str:
    """One line without thoughts; of a text cut off at the token limit, the whole sentences, if there is one."""
    text = one_line(_THOUGHTS.sub("", answer.text))
    stops = list(_STOP.finditer(text))
    return text[: stops[-1].end()] if answer.end == "cut" and stops else text
