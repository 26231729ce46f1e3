"""What every page shows alike: headings, states, problems, empty places, the next step, and figures in words."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import streamlit as st
from streamlit.elements.lib.mutable_tab_container import TabContainer

from lora_lightning.errors import LoraLightningError, Problem, RecipeError
from lora_lightning.runs.folder import State
from lora_lightning.runs.reporter import duration as duration
from lora_lightning.ui import form

PAGES = Path(__file__).parents[2] / "pages"

Colour = Literal["red", "orange", "blue", "green", "violet", "gray"]


@dataclass(frozen=True)
class Sign:
    """How a state looks; the word always stands beside the colour."""

    word: str
    icon: str
    colour: Colour


SIGNS: dict[State, Sign] = {
    "queued": Sign("Queued", ":material/schedule:", "gray"),
    "running": Sign("Running", ":material/play_circle:", "violet"),
    "stopping": Sign("Stopping", ":material/hourglass_top:", "orange"),
    "paused": Sign("Paused", ":material/pause_circle:", "gray"),
    "stopped": Sign("Stopped", ":material/stop_circle:", "gray"),
    "interrupted": Sign("Interrupted", ":material/power_off:", "orange"),
    "failed": Sign("Failed", ":material/error:", "red"),
    "completed": Sign("Completed", ":material/check_circle:", "green"),
}


def page(name: str) -> str:
    """The page of a name, as Streamlit's links want it."""
    return str(PAGES / f"{name}.py")


def head(title: str, text: str) -> None:
    """A page's heading with one sentence that says what it is for."""
    st.title(title, anchor=False)
    st.markdown(f":gray[{text}]")


def state(of: State) -> None:
    """A state as icon and word."""
    sign = SIGNS[of]
    st.badge(sign.word, icon=sign.icon, color=sign.colour)


def problem(error: LoraLightningError) -> None:
    """An error as a card that says what happened and what to do; a recipe's problems become one card each."""
    if isinstance(error, RecipeError):
        for each in error.problems:
            finding(each)
        return
    hint = error.hint or "The terminal holds the details."
    st.error(escape(hint), title=capital(escape(error.message)), icon=":material/error:")


def finding(found: Problem, *, blocks: bool = True) -> None:
    """One finding of a check: a blocker, or a warning."""
    show, icon = (st.error, ":material/block:") if blocks else (st.warning, ":material/warning:")
    show(capital(escape(found.hint)), title=f"{form.title(found.where)}: {escape(found.message)}", icon=icon)


@contextmanager
def reported() -> Iterator[None]:
    """Show the errors that a person can do something about as cards instead of raising them."""
    try:
        yield
    except LoraLightningError as error:
        problem(error)


def empty(title: str, text: str, *, to: str, label: str, icon: str, query: Mapping[str, str] | None = None) -> None:
    """An empty place: what is missing, why it matters, and the one next action."""
    with st.container(border=True, horizontal_alignment="center", key="empty"):
        st.subheader(title, anchor=False, text_alignment="center")
        st.markdown(f":gray[{text}]", text_alignment="center")
        if st.button(label, icon=icon, type="primary", key="empty_action"):
            st.switch_page(page(to), query_params=query)


def next_step(label: str, *, to: str, icon: str, query: Mapping[str, str] | None = None, key: str = "next") -> None:
    """The step that follows, as the page's main button."""
    if st.button(label, icon=icon, type="primary", key=key):
        st.switch_page(page(to), query_params=query)


def choose(label: str, names: Sequence[str], *, query: str, default: str = "") -> str:
    """Choose one of some names; '' when there is none.

    A choice is part of the page's address. What the page chose by itself is not: that would be a step for Back to stand
    still on.
    """
    asked = st.query_params.get(query) or default
    place = names.index(asked) if asked in names else 0
    chosen = st.selectbox(label, names, index=place, placeholder="There is none yet") or ""
    if chosen and chosen != names[place]:
        st.query_params[query] = chosen
    return chosen


def tabs(names: Sequence[str]) -> list[TabContainer]:
    """Tabs that are part of the page's address, in whatever case it spells them: `tab=samples`."""
    asked = st.query_params.get("tab", "")
    meant = next((name for name in names if name.lower() == asked.lower()), asked)
    if meant != asked:
        st.query_params["tab"] = st.session_state["tab"] = meant
    return list(st.tabs(names, key="tab", on_change="rerun", bind="query-params"))


def escape(text: str) -> str:
    """Text as it is, without Markdown's meanings, except that `code` stays code."""
    plain = str.maketrans({sign: f"\\{sign}" for sign in "\\*_[]$#<>~|:"})
    parts = text.split("`")
    return "`".join(part if place % 2 else part.translate(plain) for place, part in enumerate(parts))


def capital(text: str) -> str:
    """Text that begins a line; a file's name stays as it is."""
    return text[:1].upper() + text[1:] if text.split(" ")[0].rstrip(":,").isalpha() else text


def counted(number: int, noun: str) -> str:
    """A number with its noun: '1 picture', '14 pictures'."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def figure(value: float) -> str:
    """A measured number with four digits that matter, without an exponent where people would not write one."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def ago(moment: float) -> str:
    """How long ago a moment was."""
    return f"{duration(max(0.0, time.time() - moment))} ago" if moment else "never"


def place(path: Path) -> str:
    """A path as people write it: with ~ for their home folder."""
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def size(count_bytes: float) -> str:
    """Bytes with a fitting unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count_bytes < 1000:
            return f"{count_bytes:.0f} {unit}" if unit in ("B", "kB") else f"{count_bytes:.1f} {unit}"
        count_bytes /= 1000
    return f"{count_bytes:.2f} TB"
