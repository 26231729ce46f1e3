r"""The language that filters pictures: `tokens>512 AND NOT (caption:"red car" OR name:IMG_*)`.

    query   = either {"OR" either}
    either  = both {["AND"] both}               two terms side by side must both hold
    both    = "NOT" both | "(" query ")" | term
    term    = FIELD ":" text                    contains it, in any case; * is any run of characters, ? any one
            | FIELD "=" text                    is it, from the first to the last character
            | FIELD (">" | ">=" | "<" | "<=" | "=" | "!=") number
            | "empty" | "flagged" | "flagged:" CHECK
            | text                              caption or name contains it

A text with spaces, brackets or a word of the language stands in double quotes; \*, \? and \" are the signs themselves.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

from lora_lightning.datasets.terms import (
    ANYWHERE,
    FLAGS,
    KEYWORDS,
    NUMBER_FIELDS,
    TEXT_FIELDS,
    And,
    Flag,
    Not,
    Number,
    Or,
    Query,
    Text,
    pieces,
)
from lora_lightning.errors import InputError

DEEPEST = 50
_TERM = re.compile(
    r"""\s*(?:
        (?P<bracket>[()])
      | (?:(?P<field>[^\s()":<>=!]+)\s*(?P<op>:?(?:>=|<=|!=|>|<|=)|:)\s*)?
        (?P<value>"(?:[^"\\]|\\.)*"|[^\s()"]+)?
    )""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class _Token:
    """A bracket, a keyword, a term or the end; `at` is its position, from 1."""

    kind: str
    at: int
    term: Query | None = None


def parse(text: str) -> Query:
    """Read a query; an empty one lets everything through.

    Raises:
        InputError: it cannot be understood; the message says where and why.
    """
    reader = _Reader(_tokens(text))
    if reader.token.kind == "end":
        return And()
    query = reader.query()
    if reader.token.kind != "end":
        _fail(reader.token.at, "this ) closes nothing", "Remove it, or open a bracket before.")
    return query


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._depth = 0

    @property
    def token(self) -> _Token:
        return self._tokens[0]

    def query(self) -> Query:
        parts = [self._either()]
        while self.token.kind == "or":
            self._tokens.pop(0)
            parts.append(self._either())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _either(self) -> Query:
        parts = [self._both()]
        while self.token.kind in ("and", "not", "(", "term"):
            if self.token.kind == "and":
                self._tokens.pop(0)
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _both(self) -> Query:
        token = self._tokens.pop(0)
        self._depth += 1
        if self._depth > DEEPEST:
            _fail(token.at, f"more than {DEEPEST} brackets and NOTs inside one another", "Make it simpler.")
        if token.term is not None:
            found = token.term
        elif token.kind == "not":
            found = Not(self._both())
        elif token.kind == "(":
            found = self.query()
            if self._tokens[0].kind != ")":
                _fail(token.at, "this ( is never closed", "Add a ) behind its last term.")
            self._tokens.pop(0)
        else:
            _fail(token.at, "a term is missing here", 'Write one, such as caption:"red car" or tokens>512.')
        self._depth -= 1
        return found


def _tokens(text: str) -> list[_Token]:
    found, end = [], len(text.rstrip())
    position = 0
    while position < end:
        match = _TERM.match(text, position)
        at = 1 + position + len(text[position:]) - len(text[position:].lstrip())
        if match is None or (not match["bracket"] and not match["value"] and text.startswith('"', match.end())):
            _fail(at, 'its " is never closed', 'Add a " behind the text, or write \\" for the sign itself.')
        found.append(_token(match, at))
        position = match.end()
    return [*found, _Token("end", end + 1)]


def _token(match: re.Match[str], at: int) -> _Token:
    bracket, field, op, value = match.group("bracket", "field", "op", "value")
    if bracket:
        return _Token(bracket, at)
    if field:
        if value is None:
            _fail(at, f"{field}{op} has no value", f'Write one, such as {field}{op}"..." or {field}{op}10.')
        return _Token("term", at, _term(field.lower(), op, value, at))
    if value.lower() in KEYWORDS:
        return _Token(value.lower(), at)
    if value.lower() in FLAGS:
        return _Token("term", at, Flag(value.lower()))
    if re.search(r"[:<>=!]", value[0]):
        _fail(at, f"there is no field before {value!r}", "Name one before it, or put the text in quotes.")
    return _Token("term", at, Text(ANYWHERE, ":", _pattern(value)))


def _term(field: str, op: str, value: str, at: int) -> Query:
    op = op.lstrip(":") or ":"
    if field in NUMBER_FIELDS:
        return Number(field, "=" if op == ":" else op, _number(field, value, at))
    if field == "flagged" and op in (":", "="):
        if not re.fullmatch(r"[\w-]+", value):
            _fail(at, f"{value} is not the name of a check", "Name one, such as flagged:loop.")
        return Flag(field, value)
    if field not in TEXT_FIELDS:
        known = (*TEXT_FIELDS, *NUMBER_FIELDS, *FLAGS)
        near = get_close_matches(field, known, 1)
        fix = f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}; put a text with {op} in quotes."
        _fail(at, f"there is no field {field!r}", fix)
    if op not in (":", "="):
        _fail(at, f"{field} is a text and cannot be compared with {op}", f"Write {field}:... or NOT {field}=...")
    pattern = _pattern(value)
    if field == "word" and any(piece in ("*", "?") for piece in pieces(pattern)):
        _fail(at, "word: takes whole words, without * and ?", "Use caption: for parts of words.")
    return Text(field, op, pattern)


def _number(field: str, value: str, at: int) -> float:
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", value, re.IGNORECASE | re.ASCII):
        _fail(at, f"{field} is a number, {value} is none", f"Write a number, such as {field}>10.")
    return float(value)


def _pattern(value: str) -> str:
    r"""A value as typed, with each \ before *, ? or \ only."""
    signs = re.findall(r'\\[*?\\"]|.', _unquoted(value), re.DOTALL)
    return "".join('"' if s == '\\"' else r"\\" if s == "\\" else s for s in signs)


def _unquoted(value: str) -> str:
    return value[1:-1] if value.startswith('"') else value


def _fail(at: int, why: str, hint: str) -> NoReturn:
    raise InputError(f"the filter has a mistake at position {at}: {why}", hint)
