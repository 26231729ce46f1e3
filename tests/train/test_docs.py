"""docs/training.md tells of tests and fields that are there."""

import re
from pathlib import Path

from lora_lightning.recipe import Recipe

SECTIONS = ("model", "dataset", "lora", "train", "sample")
ROOT = Path(__file__).parents[2]
ROWS = [line for line in (ROOT / "docs" / "training.md").read_text().splitlines() if "::" in line]


def test_every_test_of_the_table_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", "\n".join(ROWS))
    assert len(named) >= len(ROWS) > 20
    assert [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()] == []


def test_every_field_of_the_table_exists():
    sections = {name: Recipe.model_fields[name].annotation.model_fields for name in SECTIONS}
    named = re.findall(rf"`({'|'.join(SECTIONS)})\.(\w+)", "\n".join(ROWS))
    assert [f"{section}.{name}" for section, name in named if name not in sections[section]] == []
