"""Two texts side by side, with what went and what came marked."""

from difflib import SequenceMatcher
from html import escape
from re import findall

import streamlit as st

ROW = """<div style="margin-bottom:0.9rem"><b>{title}</b>
<div style="display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,16rem),1fr));gap:0.25rem 1.5rem;
font-size:0.9rem;line-height:1.45;overflow-wrap:anywhere"><div>{before}</div><div>{after}</div></div></div>"""
MARKS = {
    "del": '<del aria-label="removed" style="background:rgba(229,72,77,0.22);border-radius:0.2rem">',
    "ins": '<ins aria-label="added" style="background:rgba(48,164,108,0.28);border-radius:0.2rem">',
}


def show(rows: list[tuple[str, str]], titles: list[str]) -> None:
    """Draw pairs of texts (before, after), each under its title."""
    st.html("".join(_row(title, before, after) for title, (before, after) in zip(titles, rows, strict=True)))


def _row(title: str, before: str, after: str) -> str:
    words, others = (findall(r"\s+|\w+|[^\w\s]", text) for text in (before, after))
    old, new = "", ""
    for tag, a, b, c, d in SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        gone, come = escape("".join(words[a:b])), escape("".join(others[c:d]))
        old += gone if tag == "equal" or not gone else f"{MARKS['del']}{gone}</del>"
        new += come if tag == "equal" or not come else f"{MARKS['ins']}{come}</ins>"
    return ROW.format(title=escape(title), before=old or "<i>no caption</i>", after=new or "<i>no caption</i>")
