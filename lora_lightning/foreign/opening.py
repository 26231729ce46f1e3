"""A recipe of another trainer, read by the first format that knows it; one format is one file in formats/."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from lora_lightning import plugins
from lora_lightning.errors import InputError, Problem
from lora_lightning.foreign.rules import Row, Translation
from lora_lightning.recipe import Recipe, inspect


@dataclass(frozen=True)
class Imported:
    """A recipe that came from elsewhere.

    Attributes:
        recipe: as far as its values are valid.
        tool: that wrote it.
        rows: what became of every setting.
        problems: values that no recipe here may hold; they are left out.
    """

    recipe: Recipe
    tool: str
    rows: Sequence[Row]
    problems: Sequence[Problem]

    def of(self, kind: str) -> list[Row]:
        """The rows of a kind: taken, left or same."""
        return [row for row in self.rows if row.fate.kind == kind]

    @property
    def rate(self) -> str:
        """What steps of the adapter amount to, which is the same there and here."""
        rate, scale = self.recipe.train.learning_rate, self.recipe.lora.scale
        return f"learning rate x alpha / rank: {rate:g} x {scale:g} = {rate * scale:g}, as {self.tool} has it"

    def to_yaml(self) -> str:
        """What the file said, in our words; everything else keeps its default."""
        values = self.recipe.model_dump(mode="json", exclude_unset=True)
        return f"# Translated from {self.tool}.\n" + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def open_file(path: Path, overrides: Iterable[str] = ()) -> Imported:
    """Read a recipe of another trainer, with `section.field=value` overrides.

    Raises:
        InputError: it is not there, or no recipe that is known.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}", "Give the recipe file of another trainer.")
    names = plugins.names("foreign/formats")
    for name in names:
        module = plugins.load("foreign/formats", name)
        if module.reads(path):
            done: Translation = module.open_file(path)
            found = inspect({"name": "imported"} | dict(done.values), overrides)
            return Imported(found.recipe, done.tool, done.rows, found.problems)
    raise InputError(
        f"{path} is no recipe of {' or '.join(names)}",
        "Give ai-toolkit's YAML, or the TOML that sd-scripts' --config_file reads.",
    )
