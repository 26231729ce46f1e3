"""Values of a recipe's fields as widgets hold them, and back: by the field's type alone."""

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

Choice = str | bool
Kind = Literal["switch", "whole", "number", "maybe", "text", "lines", "numbers", "choice", "yaml"]

SIMPLE: dict[Any, Kind] = {
    bool: "switch",
    int: "whole",
    float: "number",
    str: "text",
    int | None: "maybe",
    float | None: "maybe",
    tuple[str, ...]: "lines",
    tuple[int, ...]: "numbers",
    tuple[float, ...]: "numbers",
}


def kind_of(annotation: Any) -> Kind:
    """Which widget shows a type; whatever has none of its own is text in YAML, so no new field is left out."""
    if annotation in SIMPLE:
        return SIMPLE[annotation]
    if choices(annotation):
        return "choice"
    item = next(iter(get_args(annotation)), None)
    one_line = is_section(item) and "__str__" in vars(item)  # the section reads and writes itself as one line
    return "lines" if get_origin(annotation) is tuple and one_line else "yaml"


def choices(annotation: Any) -> list[Choice]:
    """The values to choose from: those of a Literal, with on and off where a bool may stand too; not the numbers."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        parts = get_args(annotation)
        named = [value for part in parts if get_origin(part) is Literal for value in get_args(part)]
        known = all(part in (bool, int, float) or get_origin(part) is Literal for part in parts)
        return [*named, *([True, False] if bool in parts else [])] if named and known else []
    return []


def number(annotation: Any) -> type[int] | type[float] | None:
    """The kind of number that may stand instead of a choice; None where none may."""
    kinds = get_args(annotation) if choices(annotation) and get_origin(annotation) is not Literal else ()
    return float if float in kinds else int if int in kinds else None


def shown(info: FieldInfo, value: Any) -> Any:
    """A field's value as its widget holds it."""
    kind = kind_of(info.annotation)
    if kind == "yaml":
        plain = TypeAdapter(Any).dump_python(value, mode="json")
        return yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True).strip() if value else ""
    if kind in ("lines", "numbers"):
        return ("\n" if kind == "lines" else ", ").join(str(part) for part in value)
    if kind == "maybe":
        return "" if value is None else f"{value:g}"
    return f"{value:g}" if kind == "choice" and type(value) in (int, float) else value


def read(info: FieldInfo, held: Any) -> Any:
    """What a widget holds as the field's plain value; what is no number stays text, for the recipe to complain of."""
    kind, kinds = kind_of(info.annotation), get_args(info.annotation)
    if kind == "yaml":
        return _parsed(held) if held.strip() else info.get_default(call_default_factory=True)
    if kind in ("lines", "numbers"):
        parts = [part.strip() for part in held.split("\n" if kind == "lines" else ",")]
        return [part if kind == "lines" else _as(part, kinds[0]) for part in parts if part]
    if kind == "maybe":
        return _as(held.strip(), kinds[0]) if held.strip() else None
    free = number(info.annotation)
    if free and isinstance(held, str) and held not in choices(info.annotation):
        return _as(held.strip(), free)
    return held.strip() if isinstance(held, str) else held


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _as(text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        return text


def is_section(annotation: object) -> bool:
    """Whether a type is a section of fields."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
