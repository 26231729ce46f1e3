"""What becomes of each setting of another trainer: taken over, the same here anyway, or left out for a reason."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lora_lightning.models.config import PUBLISHED, resolve_base

GATHERED = ("dataset.resolutions", "dataset.further", "sample.prompts")
"""Fields that hold what all settings with that meaning say; of any other the first one counts."""
UNKNOWN = "not known here"
OWN_DECAY = 0.01
"""Of AdamW in torch and bitsandbytes alike."""


@dataclass(frozen=True)
class Fate:
    """What becomes of one setting.

    Attributes:
        kind: taken: it sets `fields`; same: this is what always happens here; left: it is not carried over.
        fields: of our recipe, with their values.
        note: why, or what to know about it.
    """

    kind: Literal["taken", "same", "left"]
    fields: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


Rule = Callable[[Any, Mapping[str, Any]], Fate]
"""From a setting's value, and all settings by their short names, to its fate."""


@dataclass(frozen=True)
class Setting:
    """One setting as the file has it; `name` is what rules go by, `given` is false for what the file leaves out."""

    key: str
    name: str
    value: Any
    given: bool = True


@dataclass(frozen=True)
class Row:
    """A line of the report."""

    setting: Setting
    fate: Fate

    def as_dict(self) -> dict[str, Any]:
        """The line of the command line's JSON."""
        return {
            "setting": self.setting.key,
            "value": self.setting.value,
            "given": self.setting.given,
            "fields": dict(self.fate.fields),
            "note": self.fate.note,
        }

    def __str__(self) -> str:
        shown = f"{self.setting.key} = {self.setting.value}" + ("" if self.setting.given else " (its default)")
        becomes = ", ".join(f"{name}={value}" for name, value in self.fate.fields.items())
        note = f"  ({self.fate.note})" if self.fate.note else ""
        return shown + (f" -> {becomes}" if becomes else "") + note


@dataclass(frozen=True)
class Translation:
    """A recipe of another trainer, in our words.

    Attributes:
        tool: that wrote it.
        values: of our recipe, section by section; not checked.
        rows: what became of every setting.
    """

    tool: str
    values: Mapping[str, Any]
    rows: Sequence[Row]


def take(target: str, convert: Callable[[Any], Any] = lambda value: value, note: str = "") -> Rule:
    """The value, converted, under another name."""
    return lambda value, _: Fate("taken", {target: convert(value)}, note)


def choose(target: str, names: Mapping[str, Any], why: str = "there is no such choice here") -> Rule:
    """A name for a name, whatever its case."""
    folded = {name.lower(): ours for name, ours in names.items()}

    def rule(value: Any, _: Mapping[str, Any]) -> Fate:
        known = str(value).lower() in folded
        return Fate("taken", {target: folded[str(value).lower()]}) if known else Fate("left", note=why)

    return rule


def only(value: Any, why: str) -> Rule:
    """What always is so here; any other value is left out."""
    return lambda given, _: Fate("same") if given == value else Fate("left", note=why)


def when(fields: Mapping[str, Any]) -> Rule:
    """A switch: these fields when it is on."""
    return lambda value, _: Fate("taken", fields) if value else Fate("same")


def left(why: str) -> Rule:
    """Not carried over."""
    return lambda *_: Fate("left", note=why)


def all_left(reasons: Mapping[str, str]) -> dict[str, Rule]:
    """Reason -> the settings, separated by spaces, that are not carried over for it; as rules."""
    return {name: left(why) for why, names in reasons.items() for name in names.split()}


def same(*_: Any) -> Fate:
    """Always so here."""
    return Fate("same")


def optimizer(names: Mapping[str, str], decay: str) -> Rule:
    """An optimizer by its name, with its own weight decay unless the setting `decay` names another."""
    chosen = choose("train.optimizer", names, "no such optimizer here; adamw8bit is used")

    def rule(value: Any, settings: Mapping[str, Any]) -> Fate:
        fate = chosen(value, settings)
        if fate.kind == "left" or decay in settings:
            return fate
        own = OWN_DECAY if "adamw" in fate.fields["train.optimizer"] else 0.0
        return Fate("taken", {**fate.fields, "train.weight_decay": own}, f"its own weight decay is {own:g}")

    return rule


def base(value: Any, _: Mapping[str, Any]) -> Fate:
    """A base model: by our short name where it has one, a single file as the transformer's."""
    if str(value).endswith((".safetensors", ".sft")):
        kind = "schnell" if "schnell" in Path(str(value)).name.lower() else "dev"
        return Fate("taken", {"model.files": {"transformer": str(value)}, "model.base": kind})
    short = next((name for name in PUBLISHED if resolve_base(name) == str(value)), str(value))
    return Fate("taken", {"model.base": short})


def dataset(value: Any, _: Mapping[str, Any]) -> Fate:
    """A folder of pictures: they are imported once, then go by name."""
    name = clean(Path(str(value)).name)
    return Fate(
        "taken", {"dataset.name": name}, f"first: python -m lora_lightning import {name} {shlex.quote(str(value))}"
    )


def clean(name: str) -> str:
    """A name that a folder here may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(name)).strip("-._")[:64] or "imported"


def sides(value: Any) -> list[int]:
    """One side or several, as multiples of 16."""
    return [max(32, int(side) // 16 * 16) for side in _listed(value)]


def flatten(values: Mapping[str, Any], prefix: str = "", name: str = "") -> Iterator[Setting]:
    """Every setting of nested tables; lists of tables are numbered in the key and not in the name."""
    for key, value in values.items():
        tables = value if isinstance(value, list) and value and all(isinstance(each, dict) for each in value) else None
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.", f"{name}{key}.")
        elif tables:
            for place, table in enumerate(tables):
                yield from flatten(table, f"{prefix}{key}.{place}.", f"{name}{key}.")
        elif value is not None:
            yield Setting(f"{prefix}{key}", f"{name}{key}", value)


def translate(
    tool: str, settings: Sequence[Setting], rules: Mapping[str, Rule], defaults: Mapping[str, Any]
) -> Translation:
    """Apply the rules to every setting, and to the tool's defaults for what the file leaves out.

    Args:
        tool: that wrote the settings.
        settings: of its file.
        rules: by a setting's name; `sample.*` is for all that begin so and have no rule of their own.
        defaults: of the tool, by name.
    """
    given = {setting.name: setting.value for setting in reversed(settings)}
    absent = [Setting(name, name, value, False) for name, value in defaults.items() if name not in given]
    known = dict(defaults) | given
    values: dict[str, Any] = {}
    rows = []
    for setting in (*settings, *absent):
        try:
            fate = _put(values, _rule(setting.name, rules)(setting.value, known))
        except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError):
            fate = Fate("left", note="cannot be read")
        rows.append(Row(setting, fate))
    return Translation(tool, values, rows)


def _rule(name: str, rules: Mapping[str, Rule]) -> Rule:
    if name in rules:
        return rules[name]
    return next((rule for key, rule in rules.items() if key.endswith("*") and name.startswith(key[:-1])), left(UNKNOWN))


def _put(values: dict[str, Any], fate: Fate) -> Fate:
    """Set its fields; one that is set already to something else stays."""
    for target, value in fate.fields.items():
        section, dot, name = target.partition(".")
        place = values.setdefault(section, {}) if dot else values
        key = name if dot else section
        if target in GATHERED:
            place[key] = list(dict.fromkeys([*place.get(key, ()), *_listed(value)]))
        elif isinstance(value, Mapping):
            place[key] = {**place.get(key, {}), **value}
        elif place.setdefault(key, value) != value:
            return Fate("left", note=f"{target} is {place[key]} already")
    return fate


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
