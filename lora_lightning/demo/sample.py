"""The sample set that ships with the package: pictures in an ink style, and held-out objects with their true look."""

import json
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class HeldOut:
    """An object that is in no training picture: how to ask for it, and how it looks in the true style."""

    concept: str
    prompt: str
    truth: Path


@dataclass(frozen=True)
class Sample:
    """A set to learn from."""

    name: str
    archive: Path
    trigger: str
    held_out: tuple[HeldOut, ...]


def sample(name: str = "ink-style") -> Sample:
    """One set."""
    entry = _manifest()[name]
    held_out = tuple(HeldOut(row["concept"], row["prompt"], DATA / row["truth"]) for row in entry["held_out"])
    return Sample(name, DATA / entry["file"], entry["trigger"], held_out)


def _manifest() -> dict[str, dict]:  # type: ignore[type-arg]  # rows of several kinds
    manifest: dict[str, dict] = json.loads((DATA / "manifest.json").read_text(encoding="utf-8"))  # type: ignore[type-arg]
    return manifest
