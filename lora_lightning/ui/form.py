"""Widgets from the schema: a field of the recipe is one widget with the field's title, help and bounds.

Fields are named by their paths in a recipe, such as `train.steps`; sets of values are nested as in its YAML.
"""

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Any

import streamlit as st
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from lora_lightning.recipe import Recipe
from lora_lightning.settings import Only
from lora_lightning.ui.fields import Choice, choices, is_section, kind_of, number, read, shown

BOUNDS = ("ge", "gt", "le", "lt", "multiple_of")
LONG_TEXT = 40
"""A default longer than this gets a text area."""


def paths(section: str) -> list[str]:
    """The fields of one section and of the sections in it, or of the top of the recipe alone for ''."""
    model = _section(section) if section else Recipe
    found = []
    for name, info in model.model_fields.items():
        path = f"{section}.{name}" if section else name
        if not is_section(info.annotation):
            found.append(path)
        elif section:
            found += paths(path)
    return found


def title(path: str) -> str:
    """A field's name as its widget shows it; other places keep theirs."""
    try:
        return _field(path).title or path
    except (KeyError, TypeError):
        return path


def help_of(path: str) -> str:
    """A field's explanation."""
    return _field(path).description or ""


def default(path: str) -> Any:
    """What a field is when nothing is said; None for one that has to be given."""
    info = _field(path)
    return None if info.is_required() else info.get_default(call_default_factory=True)


def draw(form: str, fields: Iterable[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Draw a widget for each field, holding what is in `values` at first, and return what they hold now.

    A field that another one leaves unread is not drawn, and holds its default.

    Args:
        form: tells apart forms that show the same field.
        fields: paths of fields.
        values: nested as in a recipe; what is absent or not valid there shows the field's default.
    """
    held: dict[str, Any] = {}
    for path in fields:
        info = _field(path)
        if not _applies(path, held, values):
            put(held, path, default(path))
            continue
        key = widget_key(form, path)
        start = f"start of {key}"
        if key not in st.session_state or start not in st.session_state:
            st.session_state[start] = shown(info, _initial(info, path, values))
        put(held, path, read(info, _widget(path, info, key, st.session_state[start])))
    return held


def widget_key(form: str, path: str) -> str:
    """The key of a field's widget in the form as it is drawn now."""
    round_ = st.session_state.get(f"rounds of {form}", 0)
    return f"{form}.{path}" + (f".{round_}" if round_ else "")


def forget(form: str) -> None:
    """Let a form begin again, with new widgets, from the values it is drawn with next."""
    rounds = f"rounds of {form}"
    st.session_state[rounds] = st.session_state.get(rounds, 0) + 1


def stored(values: Mapping[str, Any], path: str) -> Any:
    """One field of nested values, or None."""
    found: Any = values
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def put(values: dict[str, Any], path: str, value: object) -> None:
    """Set one field in nested values."""
    *sections, name = path.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[name] = value


def merge(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values over one another, later ones first."""
    merged: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
            merged[name] = merge(merged[name], value) if both else value
    return merged


def _section(path: str) -> type[BaseModel]:
    model: Any = Recipe
    for part in path.split("."):
        model = model.model_fields[part].annotation
        if not is_section(model):
            raise TypeError(f"{path} is no section of a recipe")
    return model  # type: ignore[no-any-return]


def _field(path: str) -> FieldInfo:
    section, _, name = path.rpartition(".")
    return (_section(section) if section else Recipe).model_fields[name]


def _applies(path: str, held: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether the field is read, given the one that decides it: the module of its section says so in ONLY."""
    section, _, name = path.rpartition(".")
    rules: Mapping[str, Only] = getattr(sys.modules[_section(section).__module__], "ONLY", {}) if section else {}
    if name not in rules:
        return True
    deciding = f"{section}.{rules[name].field}"
    decided = next((value for each in (held, values) if (value := stored(each, deciding)) is not None), None)
    return rules[name].holds(_field(deciding).default if decided is None else decided)


def _initial(info: FieldInfo, path: str, values: Mapping[str, Any]) -> Any:
    value = stored(values, path)
    if value is not None:
        with suppress(ValidationError):
            return TypeAdapter(Annotated[info.annotation, info]).validate_python(value)  # type: ignore[arg-type]
    return "" if info.is_required() else default(path)


def _widget(path: str, info: FieldInfo, key: str, start: Any) -> Any:
    """One widget, with its first value as its default.

    Set through the session's state, the value would reach the browser once, and be lost when that run is interrupted.
    """
    label = info.title or path
    common: dict[str, Any] = {"key": key, "help": info.description}
    match kind_of(info.annotation):
        case "switch":
            return st.toggle(label, start, **common)
        case "choice":
            free = number(info.annotation) is not None
            options = choices(info.annotation)
            options += [] if start in options else [start]
            common["help"] = f"{info.description} Or type a number." if free else info.description
            return st.selectbox(
                label, options, options.index(start), format_func=_named, accept_new_options=free, **common
            )
        case "whole":
            return _number(label, info, int, start, common)
        case "number":
            return _number(label, info, float, start, common)
        case "lines":
            return st.text_area(label, start, placeholder="one a line", height=110, **common)
        case "yaml":
            return st.text_area(label, start, placeholder="YAML", height=80, **common)
        case "text" if isinstance(info.default, str) and len(info.default) > LONG_TEXT:
            return st.text_area(label, start, height=80, **common)
        case kind:
            return st.text_input(label, start, placeholder="auto" if kind == "maybe" else None, **common)


def _number(label: str, info: FieldInfo, kind: type[int] | type[float], start: float, common: dict[str, Any]) -> Any:
    """A number input with the field's bounds; an exclusive bound of a float is left to the recipe's check."""
    apart = 1 if kind is int else 0
    rules: dict[str, Any] = {
        name: getattr(rule, name) for rule in info.metadata for name in BOUNDS if hasattr(rule, name)
    }
    low = rules.get("ge", rules["gt"] + apart if "gt" in rules else None)
    high = rules.get("le", rules["lt"] - apart if "lt" in rules else None)
    bounds: list[Any] = [None if bound is None else kind(bound) for bound in (low, high)]
    step: Any = kind(rules.get("multiple_of", 1 if kind is int else _step(start)))
    value: Any = kind(start)
    return st.number_input(label, *bounds, value=value, step=step, format="%d" if kind is int else "%g", **common)


def _step(start: float) -> float:
    return start / 10 if 0 < start < 0.1 else 0.1


def _named(choice: Choice) -> str:
    return {True: "on", False: "off"}[choice] if isinstance(choice, bool) else str(choice).replace("_", " ")
