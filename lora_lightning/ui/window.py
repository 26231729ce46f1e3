"""What goes on beside the page at hand: the browser's own part (window.js), and word of runs that ended."""

from pathlib import Path

import streamlit as st

from lora_lightning.runs.folder import LIVE, RunFolder, State, Status
from lora_lightning.ui import cards
from lora_lightning.workspace import Workspace

SCRIPT = Path(__file__).parent / "static" / "window.js"
PULSE_SECONDS = 2.0
"""A state that changed without a word from its run is on the screen this much later."""

MOST_KEPT = 20


def mount(workspace: Workspace) -> None:
    """Stand on every page: run the script, and look every two seconds for runs whose state changed."""
    drawn_with_the_page = True

    def pulse() -> None:
        nonlocal drawn_with_the_page
        if _look(workspace) and not drawn_with_the_page:  # the page is being drawn anew as it is; a click may be in it
            st.rerun()
        drawn_with_the_page = False

    with st.container(key="window"):
        st.fragment(pulse, run_every=PULSE_SECONDS)()


def _look(workspace: Workspace) -> bool:
    """Tell of runs that ended since the last look; whether any run changed its state."""
    found = (RunFolder(path.parent).status() for path in workspace.runs.glob("*/recipe.yaml"))
    now = {status.name: status for status in found}
    before: dict[str, State] | None = st.session_state.get("states seen")
    st.session_state["states seen"] = {name: status.state for name, status in now.items()}
    for status in ended(before or {}, now):
        sign = cards.SIGNS[status.state]
        st.toast(f"{status.name}: {sign.word.lower()}", icon=sign.icon, duration="long")
        notices = st.session_state.setdefault("notices", [])
        notices[:] = [*notices, _notice(status)][-MOST_KEPT:]
    component = st.components.v2.component("ll_window", js=SCRIPT.read_text(encoding="utf-8"), isolate_styles=False)
    component(key="window_script", data={"notices": st.session_state.get("notices", [])}, height=1)
    return before is not None and before != st.session_state["states seen"]


def ended(before: dict[str, State], now: dict[str, Status]) -> list[Status]:
    """The runs that were at work, or in line, and are no longer; one that a person stopped needs no word."""
    return [
        status
        for name, status in now.items()
        if before.get(name) in LIVE and status.state in ("completed", "failed", "interrupted")
    ]


def _notice(status: Status) -> dict[str, str]:
    return {
        "id": f"{status.name} {status.updated}",
        "title": f"{status.name}: {cards.SIGNS[status.state].word.lower()}",
        "body": status.message or "LoRA Lightning",
        "href": f"/run?id={status.name}",
    }
