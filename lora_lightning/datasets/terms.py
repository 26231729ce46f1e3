"""The parts of a filter: what `query.parse` reads, `filtering` applies and a page puts together from clicks."""

import re
from dataclasses import dataclass

TEXT_FIELDS = ("caption", "name", "author", "word")
NUMBER_FIELDS = ("tokens", "t5", "clip", "words", "chars", "width", "height", "aspect", "version")
FLAGS = ("empty", "flagged")
KEYWORDS = ("and", "or", "not")
ANYWHERE = "anywhere"
"""The field of a text without one: caption or name."""
_PLAIN = re.compile(r"[\w.*?-]+")


@dataclass(frozen=True)
class Text:
    r"""A text field contains (":") or is ("=") a pattern, in which \ stands before a literal *, ? or \."""

    field: str
    op: str
    pattern: str


@dataclass(frozen=True)
class Number:
    """A number field compared: ">", ">=", "<", "<=", "=" or "!="."""

    field: str
    op: str
    value: float


@dataclass(frozen=True)
class Flag:
    """The caption is empty, or a check (the one named, or any) has flagged it."""

    name: str
    check: str = ""


@dataclass(frozen=True)
class Not:
    """The part does not hold."""

    part: "Query"


@dataclass(frozen=True)
class And:
    """Every part holds; without parts it lets everything through."""

    parts: "tuple[Query, ...]" = ()


@dataclass(frozen=True)
class Or:
    """At least one part holds."""

    parts: "tuple[Query, ...]"


Query = Text | Number | Flag | Not | And | Or


def spell(query: Query) -> str:
    """The query as text; `parse(spell(query)) == query`."""
    match query:
        case Text(field, op, pattern):
            return _quoted(pattern, bare=True) if field == ANYWHERE else f"{field}{op}{_quoted(pattern)}"
        case Number(field, op, value):
            return f"{field}{op}{int(value) if value.is_integer() else value}"
        case Flag(name, check):
            return f"{name}:{check}" if check else name
        case Not(part):
            return f"NOT {_bracketed(part)}"
        case And(parts):
            return " AND ".join(map(_bracketed, parts))
        case Or(parts):
            return " OR ".join(map(_bracketed, parts))


def literal(text: str) -> str:
    """The pattern that stands for a text without wildcards."""
    return re.sub(r"[*?\\]", r"\\\g<0>", text)


def pieces(pattern: str) -> list[str]:
    r"""A pattern's characters: wildcards as `*` and `?`, the signs themselves as `\*`, `\?` and `\\`."""
    return re.findall(r"\\[*?\\]|.", pattern, re.DOTALL)


def _quoted(pattern: str, *, bare: bool = False) -> str:
    if _PLAIN.fullmatch(pattern) and not (bare and pattern.lower() in (*KEYWORDS, *FLAGS)):
        return pattern
    return '"' + pattern.replace('"', '\\"') + '"'


def _bracketed(query: Query) -> str:
    return f"({spell(query)})" if isinstance(query, And | Or) else spell(query)
