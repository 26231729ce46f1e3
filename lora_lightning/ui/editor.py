"""Caption cards: a picture beside its text. What is typed is saved when the box is left, and nothing is overwritten."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.errors import CaptionConflict, LoraLightningError
from lora_lightning.ui import cards, gallery
from lora_lightning.workspace import Workspace

PER_PAGE = 20
FILTERS = ("All", "Without caption", "By a person", "By a machine")


@dataclass(frozen=True)
class Conflict:
    """Two texts for one picture: the one typed here, and the one stored meanwhile."""

    mine: str
    theirs: str


def cards_of(workspace: Workspace, dataset: Dataset) -> None:
    """The editor of a dataset: a filter, a search, and a page of cards."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.segmented_control("Show", FILTERS, default="All", required=True, key="captions.filter")
        search = st.text_input("Find in captions and names", key="captions.search", icon=":material/search:")
    pictures = matching(dataset.pictures(), wanted or "All", search or "")
    st.markdown(f":gray[{cards.counted(len(pictures), 'picture')}. A caption is saved when you leave its box.]")
    page = gallery.pager(len(pictures), "captions", PER_PAGE)
    for picture in pictures[(page - 1) * PER_PAGE : page * PER_PAGE]:
        with st.container(border=True):
            _card(workspace, dataset, picture)


def matching(pictures: list[Picture], wanted: str, search: str) -> list[Picture]:
    """The pictures that a filter and a search let through."""
    keep: dict[str, Callable[[Picture], bool]] = {
        "All": lambda picture: True,
        "Without caption": lambda picture: not picture.caption,
        "By a person": lambda picture: picture.author == "human",
        "By a machine": lambda picture: picture.author not in ("", "human", "import"),
    }
    text = search.casefold()
    return [each for each in pictures if keep[wanted](each) and text in f"{each.name}\n{each.caption}".casefold()]


def _card(workspace: Workspace, dataset: Dataset, picture: Picture) -> None:
    left, right = st.columns([1, 3])
    with left:
        gallery.picture(gallery.of_picture(workspace, dataset, picture))
    with right:
        key = f"caption.{dataset.name}.{picture.id}.{picture.version}"
        st.text_area(
            picture.name,
            picture.caption,
            key=key,
            height=110,
            placeholder="No caption yet: describe what is to be seen, in one sentence or two.",
            on_change=_save,
            args=(dataset, picture, key),
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f":gray[:small[{cards.escape(_origin(picture))}]]")
            if picture.version > 1:
                st.button(
                    "Undo",
                    key=f"{key}.undo",
                    icon=":material/undo:",
                    type="tertiary",
                    help="Back to the caption before this one.",
                    on_click=_undo,
                    args=(dataset, picture),
                )
        _conflict(dataset, picture)


def _origin(picture: Picture) -> str:
    size = f"{picture.width} x {picture.height}"
    saved = st.session_state.get(_saved_key(picture), "")
    author = {"": "no caption", "human": "written by a person", "import": "imported"}.get(
        picture.author, f"written by {picture.author}"
    )
    return f"{size}, {author}" + (f". ✓ Saved {saved}" if saved else "")


def _save(dataset: Dataset, picture: Picture, key: str) -> None:
    text = st.session_state[key]
    try:
        dataset.write_caption(picture.id, text, author="human", expected_version=picture.version)
    except CaptionConflict as conflict:
        st.session_state[_conflict_key(picture)] = Conflict(text, conflict.current)
    except LoraLightningError as error:
        cards.problem(error)
    else:
        st.session_state[_saved_key(picture)] = time.strftime("%H:%M:%S")


def _undo(dataset: Dataset, picture: Picture) -> None:
    dataset.undo(picture.id)
    st.session_state[_saved_key(picture)] = time.strftime("%H:%M:%S")


def _conflict(dataset: Dataset, picture: Picture) -> None:
    conflict = st.session_state.get(_conflict_key(picture))
    if conflict is None:
        return
    st.warning(
        f"**Yours:** {cards.escape(conflict.mine)}\n\n**Stored:** {cards.escape(conflict.theirs)}",
        title="This caption was changed elsewhere while you wrote",
        icon=":material/call_split:",
    )
    with st.container(horizontal=True):
        keys = f"conflict.{picture.sha256}"
        st.button("Save mine", key=f"{keys}.mine", on_click=_resolve, args=(dataset, picture, conflict.mine))
        st.button("Keep the stored one", key=f"{keys}.theirs", on_click=_resolve, args=(dataset, picture, None))


def _resolve(dataset: Dataset, picture: Picture, mine: str | None) -> None:
    del st.session_state[_conflict_key(picture)]
    if mine is not None:
        dataset.write_caption(picture.id, mine, author="human", expected_version=picture.version)
        st.session_state[_saved_key(picture)] = time.strftime("%H:%M:%S")


def _conflict_key(picture: Picture) -> str:
    return f"caption.conflict.{picture.sha256}"


def _saved_key(picture: Picture) -> str:
    return f"caption.saved.{picture.sha256}"
