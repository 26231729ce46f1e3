"""The samples of a training: prompt by step with the base (step 0) beside, and two steps compared by a slider."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import streamlit as st

from lora_lightning.runs.folder import RunFolder
from lora_lightning.ui import cards, gallery
from lora_lightning.workspace import Workspace

NAME = re.compile(r"(\d+)-(\d+)\.png")
MOST_STEPS = 12
"""Columns of the table; of more steps, evenly spread ones are shown."""


@dataclass(frozen=True)
class Samples:
    """Pictures by step and place of their prompt."""

    pictures: Mapping[int, Mapping[int, Path]]
    prompts: Mapping[int, str]

    @property
    def steps(self) -> list[int]:
        """The steps at which pictures were drawn."""
        return sorted(self.pictures)


def find(run: RunFolder) -> Samples:
    """The samples that a run has drawn so far."""
    pictures: dict[int, dict[int, Path]] = {}
    for path in sorted(run.samples.glob("*.png")):
        if named := NAME.fullmatch(path.name):
            pictures.setdefault(int(named[1]), {})[int(named[2])] = path
    latest = pictures[max(pictures)] if pictures else {}
    prompts = {place: gallery.facts(path).get("prompt", "") for place, path in latest.items()}
    return Samples(pictures, prompts)


def show(workspace: Workspace, run: RunFolder) -> None:
    """The whole of it: which step to look at, the slider, the table."""
    found = find(run)
    if not found.steps:
        st.info("They appear here as the run draws them.", title="No samples yet", icon=":material/image:")
        return
    step = _chosen(found.steps, f"samples.step.{run.name}")
    if len(found.steps) > 1:
        _comparison(workspace, found, step)
    st.subheader("Every prompt at every step", anchor=False)
    st.html(table(workspace, found, step))
    sheet = run.samples / "sheet.png"
    if sheet.is_file():
        st.subheader("Contact sheet", anchor=False)
        gallery.picture(gallery.of_file(workspace, sheet, "the base and the LoRA from the same seeds"))


def _chosen(steps: Sequence[int], key: str) -> int:
    """The step in view; it is part of the page's address."""
    if len(steps) == 1:
        return steps[0]
    if st.session_state.get(key) not in steps:
        asked = st.query_params.get("step", "")
        wanted = int(asked) if asked.isdecimal() else steps[-1]
        st.session_state[key] = min(steps, key=lambda step: abs(step - wanted))

    def remember() -> None:
        st.query_params["step"] = str(st.session_state[key])

    return int(st.select_slider("Step", steps, key=key, on_change=remember))


def _comparison(workspace: Workspace, found: Samples, step: int) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        places = sorted(found.pictures[step])
        place = st.selectbox(
            "Prompt",
            places,
            format_func=lambda place: found.prompts.get(place) or f"Prompt {place + 1}",
            key="samples.p",
        )
        before = [other for other in found.steps if place in found.pictures[other] and other != step]
        if not before:
            return
        other = st.selectbox("Compare with", before, format_func=named, key=f"samples.with.{step}", width=200)
    left, right = found.pictures[other][place], found.pictures[step][place]
    st.html(compared(gallery.url(workspace, left), gallery.url(workspace, right), named(other), named(step)))


def named(step: int) -> str:
    """A step in words."""
    return f"step {step:,}" if step else "base (step 0)"


def compared(left: str, right: str, left_words: str, right_words: str) -> str:
    """Two pictures, one over the other, with a slider that window.js listens to."""
    ends = f'<div class="ll-ends"><span>◂ {escape(left_words)}</span><span>{escape(right_words)} ▸</span></div>'
    return (
        f'<div class="ll-compare"><img src="{escape(left)}" alt="{escape(left_words)}">'
        f'<img class="ll-over" src="{escape(right)}" alt="{escape(right_words)}"><div class="ll-edge"></div>'
        f'<input type="range" min="0" max="100" value="50" aria-label="Show more of one or the other">{ends}</div>'
    )


def table(workspace: Workspace, found: Samples, chosen: int) -> str:
    """Prompts down, steps across."""
    steps = spread(found.steps, chosen)
    rows = [
        (found.prompts.get(place, ""), [found.pictures[step].get(place) for step in steps])
        for place in sorted({place for step in steps for place in found.pictures[step]})
    ]
    return grid(workspace, [cards.capital(named(step)) for step in steps], rows, steps.index(chosen))


def grid(
    workspace: Workspace, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Path | None]]], chosen: int = -1
) -> str:
    """Pictures in a table of words by heads; the chosen column is marked."""
    head = "".join(f'<th scope="col">{escape(words)}</th>' for words in heads)
    body = []
    for words, pictures in rows:
        cells = (
            _cell(workspace, path, f"{heads[place]}: {words}", place == chosen) for place, path in enumerate(pictures)
        )
        body.append(f'<tr><th scope="row">{escape(words)}</th>{"".join(cells)}</tr>')
    top = f"<thead><tr><td></td>{head}</tr></thead>"
    return f'<div class="ll-table"><table>{top}<tbody>{"".join(body)}</tbody></table></div>'


def spread(steps: Sequence[int], chosen: int) -> list[int]:
    """At most MOST_STEPS of the steps: the first, the last, the chosen one and others evenly between."""
    if len(steps) <= MOST_STEPS:
        return list(steps)
    last = len(steps) - 1
    kept = {round(number * last / (MOST_STEPS - 2)) for number in range(MOST_STEPS - 1)}
    return [step for place, step in enumerate(steps) if place in kept or step == chosen]


def _cell(workspace: Workspace, path: Path | None, words: str, chosen: bool) -> str:
    if path is None:
        return "<td></td>"
    alt = escape(words, quote=True)
    mark = ' class="ll-chosen"' if chosen else ""
    return (
        f'<td><a href="{escape(gallery.url(workspace, path))}" target="_blank" title="{alt}"'
        f' data-send="{escape(gallery.redraw(workspace, path), quote=True)}">'
        f'<img{mark} src="{escape(gallery.small(workspace, path))}" alt="{alt}" loading="lazy"></a></td>'
    )
