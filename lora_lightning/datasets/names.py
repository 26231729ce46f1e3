"""File names as data: cleaned, compared and ordered, and never used as paths."""

import re
import unicodedata
from collections.abc import Iterable

from lora_lightning.workspace import WINDOWS_DEVICES

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif")
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_DIGITS = re.compile(r"([0-9]+)")


def clean(text: str) -> str:
    """The text without what could break a line, a log or the reading direction, or cannot be stored as UTF-8."""
    return _UNSAFE.sub("_", text).encode("utf-8", "replace").decode()


def fold(text: str) -> str:
    """What makes two names the same: NFC and case folding, as macOS and Windows see them."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", clean(text)).casefold())


def stem(name: str) -> str:
    """The name without the suffix of a picture; other dots belong to the name (`v1.5` stays)."""
    head, dot, suffix = name.rpartition(".")
    return head if head and f"{dot}{suffix}".lower() in PICTURE_SUFFIXES else name


def natural_order(name: str) -> list[tuple[int, str]]:
    """A sort key that counts: `2.png` comes before `10.png`."""
    parts = _DIGITS.split(fold(name))
    return [(len(part.lstrip("0")), part.lstrip("0")) if i % 2 else (0, part) for i, part in enumerate(parts)]


def one_line(text: str) -> str:
    """A caption as it is stored: line breaks and control characters become single spaces.

    Source of the rule: some trainers read the first line only, others one caption a line (sd-scripts, OneTrainer).
    """
    if text.isprintable():
        return text.strip()
    parts = re.split("[\x00-\x1f\x7f-\x9f\u2028\u2029]+", text.encode("utf-8", "replace").decode())
    return " ".join(part for raw in parts if (part := raw.strip()))


class UniqueNames:
    """Gives out names that differ from one another when folded, numbering those that would not."""

    def __init__(self, taken: Iterable[str] = (), pattern: str = "{stem} ({number}){suffix}") -> None:
        self._taken = {fold(name) for name in taken}
        self._pattern = pattern
        self._next: dict[str, int] = {}

    def take(self, name: str) -> str:
        """The name itself, or the first free numbered one such as `beach (2).jpg`."""
        base, candidate = stem(name), name
        while fold(candidate) in self._taken:
            number = self._next[fold(name)] = self._next.get(fold(name), 1) + 1
            candidate = self._pattern.format(stem=base, number=number, suffix=name[len(base) :])
        self._taken.add(fold(candidate))
        return candidate


def portable_stems(names: Iterable[str]) -> list[str]:
    """Stems for other tools: ASCII, safe on every system, unique whatever the case and the suffix."""
    unique = UniqueNames(pattern="{stem}-{number}")
    return [unique.take(_portable(stem(name))) for name in names]


def _portable(text: str) -> str:
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    base = re.sub(r"[^A-Za-z0-9_-]+", "_", ascii_text).strip("_-")[:80] or "picture"
    return f"{base}_" if base.lower() in WINDOWS_DEVICES else base
