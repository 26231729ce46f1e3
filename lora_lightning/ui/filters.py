"""Which captions are in view: a query, typed or put together by clicks, over checks, tokens and words."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import streamlit as st

from lora_lightning.datasets import checks, words
from lora_lightning.datasets.checks import Check
from lora_lightning.datasets.filtering import Columns, arrange
from lora_lightning.datasets.kinds import CAPTION, USUAL
from lora_lightning.datasets.query import parse
from lora_lightning.datasets.snapshot import Snapshot
from lora_lightning.datasets.store import Picture
from lora_lightning.datasets.terms import And, Flag, Text, literal, spell
from lora_lightning.datasets.tokens import Meters, meters
from lora_lightning.datasets.words import Phrase
from lora_lightning.errors import InputError
from lora_lightning.models.config import ModelConfig, resolve_base
from lora_lightning.ui import cards, drafts, form
from lora_lightning.workspace import Workspace

FIND = "find"
"""The key of the query, in the session and in the page's address."""

SYNTAX = """
Words that stand in a caption or a name, or terms:

- `caption:"red car"`, `name:IMG_*`, `word:cat`, `author=human`
- `tokens>512`, `clip>77`, `words<10`, `chars>900`, `width<768`, `aspect>2`
- `empty`, `flagged`, `flagged:loop`
- put together with `AND`, `OR`, `NOT` and brackets
"""
ORDERS = {
    "Name": ("", False),
    "Most tokens": ("tokens", True),
    "Fewest tokens": ("tokens", False),
    "Smallest picture": ("width", False),
    "Most edited": ("version", True),
}
"""Title: a number field to sort by, and whether the largest comes first."""

ORIGINS = {
    "empty": "without a caption",
    "author=human": "by a person",
    "author=import": "imported",
    "NOT (empty OR author=human OR author=import)": "by a machine",
}
KINDS = {CAPTION: "Captions"} | {kind: kind.capitalize() for kind in USUAL}
PHRASES_SHOWN = 60
CACHED = 4
AIMED = ("trigger", "model.base")


CHECKED_UNASKED = 2_000
"""Captions that are checked at once, in a second; checking more waits for a click."""


@dataclass(frozen=True)
class Aim:
    """What captions are checked for: the trigger word, the base model that reads them, and the kind of LoRA."""

    trigger: str
    base: str
    kind: str


@dataclass(frozen=True)
class View:
    """What the page shows now.

    Attributes:
        snapshot: of the dataset.
        pictures: those that the query lets through, in order.
        checks: of all captions.
        meters: of the base model.
        trigger: the word that captions are checked for, empty for none.
        kind: of caption that the pictures come with.
    """

    snapshot: Snapshot
    pictures: list[Picture]
    checks: list[Check]
    meters: Meters
    trigger: str
    kind: str

    def flagged(self, picture: Picture) -> bool:
        """Whether a check found something in the caption, or there is none; CLIP's limit alone does not count."""
        return not picture.caption or any(
            picture.id in check.passages for check in self.checks if check.name != self.meters.clip.name.lower()
        )


def draw(workspace: Workspace, snapshot: Snapshot) -> View:
    """The find box, order and chips, and the pictures that they leave: none while the query has a mistake."""
    find, which, sort, popover = st.columns([9, 4, 4, 5], vertical_alignment="bottom")
    text = find.text_input(
        "Find",
        key=FIND,
        icon=":material/search:",
        placeholder="words, or tokens>512 AND NOT caption:trigger",
        help=SYNTAX,
        bind="query-params",
    )
    kind = which.selectbox(
        "Captions",
        list(KINDS),
        format_func=KINDS.__getitem__,
        key="kind",
        bind="query-params",
        help="The captions that every trainer gets, or those beside them.",
    )
    pictures = snapshot.of(kind)
    order = sort.selectbox("Sort by", list(ORDERS), key="captions.order", persist_state="session")
    with popover.popover("Trigger, model", icon=":material/rule:", key="captions.aim", width="stretch"):
        aim = _aim(workspace)
    gauge = meters(resolve_base(aim.base))
    key = (snapshot.token, kind, aim.base, gauge.clip.estimated, gauge.t5.estimated)
    found = _checked(pictures, gauge, key, aim) if _wanted(pictures) else []
    columns = _columns(pictures, gauge, key)
    shown: list[Picture] = []
    with cards.reported():
        shown = columns.select(parse(text or ""), {check.name: check.ids for check in found})
    field, descending = ORDERS[order]
    shown = arrange(shown, field, gauge, descending=descending) if field and shown else shown
    _chip_row(columns, found)
    _phrases(pictures, f"{snapshot.token} {kind}")
    return View(snapshot, shown, found, gauge, aim.trigger, kind)


def toggled(text: str, term: str) -> str:
    """The query with a term more, or without it if it must hold already; a query with a mistake gives way."""
    try:
        query = parse(text)
    except InputError:
        query = And()
    parts = query.parts if isinstance(query, And) else (query,)
    clicked = parse(term)
    rest = tuple(part for part in parts if part != clicked)
    return spell(And(rest if len(rest) < len(parts) else (*parts, clicked)))


def holds(text: str, term: str) -> bool:
    """Whether a term must hold for a picture to be in view."""
    try:
        query = parse(text)
    except InputError:
        return False
    return parse(term) in (query.parts if isinstance(query, And) else (query,))


def _wanted(pictures: Sequence[Picture]) -> bool:
    """Whether to check the captions: few at once, many when asked."""
    if len(pictures) <= CHECKED_UNASKED:
        return True
    return st.toggle(f"Check {len(pictures):,} captions", key="captions.checked", persist_state="session")


def _aim(workspace: Workspace) -> Aim:
    """What to check for, to be changed here; at first that of the Train page."""
    start: dict[str, Any] = {"trigger": "", "model": {"base": ModelConfig().base}}
    for draft in (drafts.load(workspace, "train"), drafts.load(workspace, "captions")):
        for path in AIMED:
            if (value := form.stored(draft, path)) is not None:
                form.put(start, path, value)
    values = form.draw("captions", AIMED, start)
    if values != start:
        drafts.save(workspace, "captions", values)
    style = st.toggle(
        "Style LoRA",
        key="captions.style",
        persist_state="session",
        help="Flags words that name a style: a style LoRA learns what its captions leave out.",
    )
    return Aim(values["trigger"], values["model"]["base"] or ModelConfig().base, checks.STYLE if style else "")


def _chip_row(columns: Columns, found: Sequence[Check]) -> None:
    """Where captions come from and what the checks flagged, each as a chip with its count that filters."""
    counts = {term: int(columns.mask(parse(term), {}).sum()) for term in ORIGINS}
    labels = {term: f"{counts[term]:,} {title}" for term, title in ORIGINS.items() if counts[term]}
    flagged = {spell(Flag("flagged", check.name)): check for check in found if check.count}
    labels |= {term: f":material/flag: {check.count:,} {cards.escape(check.title)}" for term, check in flagged.items()}
    for term in _chips("Filters", labels, "captions.chips"):
        if check := flagged.get(term):
            st.markdown(f":gray[:small[**{cards.escape(check.title)}**: {cards.escape(check.explanation)}]]")


@st.cache_resource(max_entries=CACHED, show_spinner="Checking captions", hash_funcs={Aim: astuple})
def _checked(_pictures: Sequence[Picture], _gauge: Meters, key: tuple[object, ...], aim: Aim) -> list[Check]:
    """All checks, made once for what the captions say: a filter or another page of 10,000 need not wait for them."""
    return checks.run(_pictures, _gauge, trigger=aim.trigger, kind=aim.kind)


@st.cache_resource(max_entries=CACHED, show_spinner=False)
def _columns(_pictures: Sequence[Picture], _gauge: Meters, key: tuple[object, ...]) -> Columns:
    return Columns(_pictures, _gauge)


@st.cache_resource(max_entries=CACHED, show_spinner="Counting words")
def _frequency(_pictures: Sequence[Picture], token: str) -> list[Phrase]:
    return words.frequency([picture.caption for picture in _pictures if picture.caption])[:PHRASES_SHOWN]


def _phrases(pictures: Sequence[Picture], token: str) -> None:
    panel = st.expander("Words and phrases", icon=":material/format_quote:", key="captions.words", on_change="rerun")
    if not panel.open:
        return
    with panel:
        found = _frequency(pictures, token)
        if not found:
            st.markdown(":gray[No word stands in two captions yet.]")
            return
        st.markdown(":gray[:small[In how many captions a word or phrase stands. Click one to see these captions.]]")
        labels = {
            spell(Text("word", ":", literal(each.text))): f"{cards.escape(each.text)} {each.captions:,}"
            for each in found
        }
        _chips("Words and phrases", labels, "captions.phrases")


def _chips(label: str, labels: Mapping[str, str], key: str) -> list[str]:
    """Terms as pills that are on while the query holds them, and change the query when clicked."""
    text = st.session_state.get(FIND, "")
    on = [term for term in labels if holds(text, term)]
    if not labels:
        return on
    st.session_state[key] = on
    st.pills(
        label,
        list(labels),
        selection_mode="multi",
        format_func=labels.__getitem__,
        key=key,
        label_visibility="collapsed",
        on_change=_clicked,
        args=(key, on),
    )
    return on


def _clicked(key: str, on: Sequence[str]) -> None:
    for term in set(st.session_state[key]) ^ set(on):
        st.session_state[FIND] = toggled(st.session_state.get(FIND, ""), term)
