"""A tour of two minutes: what each step is for, in the order of the work."""

from dataclasses import dataclass

import streamlit as st

from lora_lightning.ui import cards

PLACE = "tour"


@dataclass(frozen=True)
class Stop:
    """One stop of the tour, and the page that it is about."""

    title: str
    text: str
    page: str


STOPS = (
    Stop(
        "Pictures",
        "Ten to forty good pictures of one subject or one style make a LoRA. **Datasets** takes a ZIP or a folder, "
        "reads each picture rightly and tells what it did with it. Your originals stay as they are.",
        "datasets",
    ),
    Stop(
        "Captions",
        "A caption says what a picture shows. What you describe stays changeable; what you leave out is learned as "
        "part of the trigger word. A captioner writes a first version; nothing you type is overwritten.",
        "captions",
    ),
    Stop(
        "Train",
        "Choose what the LoRA is of, give it a trigger word, and start. What stands in the way is said beside the "
        "form, with a button that puts it right. **Rehearse first** tries it all on a small model in minutes.",
        "train",
    ),
    Stop(
        "Runs",
        "A run goes on without this window. Watch its samples beside the base, stop it, resume it, continue it. "
        "Several wait in line, overnight if you like; one that fails does not hold up the rest.",
        "runs",
    ),
    Stop(
        "Use it",
        "**Generate** draws with one or several LoRAs, **Evaluate** shows what was learned and what was forgotten, "
        "**Publish** puts it on the Hugging Face Hub. The file works in ComfyUI, Forge and diffusers as it is.",
        "generate",
    ),
)


def offer(key: str) -> None:
    """The button that begins it."""
    st.button("Take the tour (2 minutes)", key=key, icon=":material/tour:", on_click=_go, args=(0,))


def show() -> None:
    """The stop at hand, as long as there is one."""
    if PLACE in st.session_state:
        _dialog()


@st.dialog("A short tour", icon=":material/tour:", on_dismiss=lambda: _end())
def _dialog() -> None:
    place = st.session_state.get(PLACE)
    if place is None:
        st.rerun()
    stop = STOPS[place]
    st.markdown(f":gray[{place + 1} of {len(STOPS)}]")
    st.subheader(stop.title, anchor=False)
    st.markdown(stop.text)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("Back", key="tour.back", disabled=place == 0, on_click=_go, args=(place - 1,))
        if place + 1 < len(STOPS):
            st.button("Next", key="tour.next", type="primary", on_click=_go, args=(place + 1,), shortcut="Enter")
        else:
            st.button("Done", key="tour.done", type="primary", on_click=_end)
        st.page_link(cards.page(stop.page), label=f"Go to {stop.page.capitalize()}")


def _go(place: int) -> None:
    st.session_state[PLACE] = place


def _end() -> None:
    st.session_state.pop(PLACE, None)
