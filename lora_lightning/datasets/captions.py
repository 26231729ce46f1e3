"""Captions read from text files, each with the name of the picture it is meant for; `caption_rows` reads the others.

Read: `0001.png: ...` lines; and a text file beside its picture (`0001.txt`, `0001.png.txt` or `0001.caption`).
Limits: 16 MiB a file, 20,000 characters a caption.
"""

import codecs
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from lora_lightning.datasets.entries import Unusable
from lora_lightning.datasets.names import PICTURE_SUFFIXES, clean, one_line

MAX_CAPTIONS_BYTES = 16 * 2**20
MAX_CAPTION_CHARACTERS = 20_000
MAX_LABEL_CHARACTERS = 250
_LINE = re.compile(
    rf"(?P<name>[^:]{{1,250}}?(?:{'|'.join(map(re.escape, PICTURE_SUFFIXES))})) ?:(?P<text>.*)", re.IGNORECASE
)


@dataclass(frozen=True)
class Claim:
    """A caption that looks for its picture.

    Attributes:
        label: how the report calls it.
        path: of the picture it names, inside its source; the suffix may be missing.
        text: one line.
        kind: "" for the caption, or which of the other captions of its picture it is: "short", "tags", ...
    """

    label: str
    path: str
    text: str
    kind: str = ""

    def check(self) -> None:
        """Raise Unusable for a caption that says nothing, or far too much."""
        if not self.text:
            raise Unusable("the caption is empty")
        if len(self.text) > MAX_CAPTION_CHARACTERS:
            raise Unusable(f"the caption is longer than {MAX_CAPTION_CHARACTERS:,} characters")


def is_list(text: str) -> bool:
    """Whether every line names a picture, as in `0001.png: a dog on a beach`."""
    lines = [line for line in text.splitlines() if line.strip()]
    return bool(lines) and all(_LINE.fullmatch(line.strip()) for line in lines)


def read_list(file: str, text: str) -> list[Claim]:
    """The captions of a text file in which each line names its picture."""
    matches = (_LINE.fullmatch(line.strip()) for line in text.splitlines())
    return [listed(file, match["name"], match["text"]) for match in matches if match]


def read_sidecar(file: str, text: str) -> Claim:
    """The caption of a text file that is named after its picture."""
    return Claim(file, str(PurePosixPath(file).with_suffix("")), one_line(text))


def listed(file: str, name: str, text: str, kind: str = "") -> Claim:
    """A caption listed in `file`; the name is seen from the folder where that file lies."""
    path = PurePosixPath(file).parent / name.strip().replace("\\", "/").lstrip("/")
    return Claim(label(file, name), str(path), one_line(text), kind)


def label(file: str, name: str) -> str:
    """How the report calls the caption that `file` lists under `name`."""
    return f"{file}: {clean(name)[:MAX_LABEL_CHARACTERS]}"


def decode_text(data: bytes) -> str:
    """Text in UTF-8, or in UTF-16 with its mark.

    Raises:
        Unusable: it is neither.
    """
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unusable("the text is not UTF-8; save it as UTF-8") from None
