"""Widgets from the schema: a field of the recipe is one widget with the field's title, help and bounds.

Fields are named by their paths in a recipe, such as `train.steps`; sets of values are nested as in its YAML.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import streamlit as st
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from lora_lightning.recipe import Recipe

BOUNDS = ("ge", "gt", "le", "lt", "multiple_of")
LONG_TEXT = 40
"""A default longer than this gets a text area."""

Choice = str | bool
Kind = Literal["switch", "whole", "number", "maybe", "text", "texts", "numbers", "choice"]

SIMPLE: dict[Any, Kind] = {
    bool: "switch",
    int: "whole",
    float: "number",
    str: "text",
    int | None: "maybe",
    float | None: "maybe",
    tuple[str, ...]: "texts",
    tuple[int, ...]: "numbers",
    tuple[float, ...]: "numbers",
}


def paths(section: str) -> list[str]:
    """The fields of one section, or of the top of the recipe for ''."""
    model = _section(section) if section else Recipe
    return [
        f"{section}.{name}" if section else name
        for name, info in model.model_fields.items()
        if not _is_section(info.annotation)
    ]


def title(path: str) -> str:
    """A field's name as its widget shows it; other places keep theirs."""
    try:
        return _field(path).title or path
    except (KeyError, TypeError):
        return path


def draw(form: str, fields: Iterable[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Draw a widget for each field, holding what is in `values` at first, and return what they hold now.

    Args:
        form: tells apart forms that show the same field.
        fields: paths of fields.
        values: nested as in a recipe; what is absent or not valid there shows the field's default.

    Raises:
        TypeError: a field is of a type that no widget is made for.
    """
    held: dict[str, Any] = {}
    for path in fields:
        info = _field(path)
        key = widget_key(form, path)
        start = f"start of {key}"
        if key not in st.session_state or start not in st.session_state:
            st.session_state[start] = _shown(info, _initial(info, path, values))
        put(held, path, _read(info, _widget(path, info, key, st.session_state[start])))
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
    section, dot, name = path.rpartition(".")
    holder = values.get(section) if dot else values
    return holder.get(name) if isinstance(holder, Mapping) else None


def put(values: dict[str, Any], path: str, value: object) -> None:
    """Set one field in nested values."""
    section, dot, name = path.rpartition(".")
    (values.setdefault(section, {}) if dot else values)[name] = value


def merge(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values over one another, later ones first."""
    merged: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
            merged[name] = {**merged[name], **value} if both else value
    return merged


def _section(name: str) -> type[BaseModel]:
    annotation = Recipe.model_fields[name].annotation
    if not _is_section(annotation):
        raise TypeError(f"{name} is no section of a recipe")
    return annotation  # type: ignore[return-value]


def _is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _field(path: str) -> FieldInfo:
    section, _, name = path.rpartition(".")
    return (_section(section) if section else Recipe).model_fields[name]


def _initial(info: FieldInfo, path: str, values: Mapping[str, Any]) -> Any:
    value = stored(values, path)
    if value is not None:
        with suppress(ValidationError):
            return TypeAdapter(Annotated[info.annotation, info]).validate_python(value)  # type: ignore[arg-type]
    return "" if info.is_required() else info.default


def _kind(path: str, annotation: Any) -> Kind:
    if annotation in SIMPLE:
        return SIMPLE[annotation]
    if _choices(annotation):
        return "choice"
    raise TypeError(f"no widget shows {path}, which holds {annotation}")


def _choices(annotation: Any) -> list[Choice]:
    """The values to choose from: those of a Literal, with on and off where a bool may stand too."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        parts = get_args(annotation)
        named = [value for part in parts if get_origin(part) is Literal for value in get_args(part)]
        known = all(part in (bool, float) or get_origin(part) is Literal for part in parts)
        return [*named, *([True, False] if bool in parts else [])] if named and known else []
    return []


def _widget(path: str, info: FieldInfo, key: str, start: Any) -> Any:
    """One widget, with its first value as its default.

    Set through the session's state, the value would reach the browser once, and be lost when that run is interrupted.
    """
    label = info.title or path
    common: dict[str, Any] = {"key": key, "help": info.description}
    match _kind(path, info.annotation):
        case "switch":
            return st.toggle(label, start, **common)
        case "choice":
            free = float in get_args(info.annotation)
            options = _choices(info.annotation)
            options += [] if start in options else [start]
            return st.selectbox(
                label, options, options.index(start), format_func=_named, accept_new_options=free, **common
            )
        case "whole":
            return _number(label, info, int, start, common)
        case "number":
            return _number(label, info, float, start, common)
        case "texts":
            return st.text_area(label, start, placeholder="one a line", height=110, **common)
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


def _shown(info: FieldInfo, value: Any) -> Any:
    """A field's value as its widget holds it."""
    if isinstance(value, tuple):
        return ("\n" if str in get_args(info.annotation) else ", ").join(str(part) for part in value)
    if NoneType in get_args(info.annotation):
        return "" if value is None else f"{value:g}"
    return str(value) if isinstance(value, float) and _choices(info.annotation) else value


def _read(info: FieldInfo, held: Any) -> Any:
    """What a widget holds as the field's plain value; what is no number stays text, for the recipe to complain of."""
    kinds = get_args(info.annotation)
    if get_origin(info.annotation) is tuple:
        parts = [part.strip() for part in held.split("\n" if str in kinds else ",")]
        return [_as(part, kinds[0]) for part in parts if part]
    if NoneType in kinds:
        return _as(held.strip(), kinds[0]) if held.strip() else None
    if isinstance(held, str) and float in kinds and held not in _choices(info.annotation):
        return _as(held, float)
    return held.strip() if isinstance(held, str) else held


def _as(text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        return text
