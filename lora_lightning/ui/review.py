"""One picture after the other, from the keyboard: read, correct, accept, next."""

from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from lora_lightning.datasets.store import HUMAN, IMPORT, Dataset, Picture
from lora_lightning.errors import CaptionConflict
from lora_lightning.ui import box, captioner, cards, gallery
from lora_lightning.ui.filters import View
from lora_lightning.workspace import Workspace

AT = "picture"
"""The number of the picture in view, in the session and in the page's address."""


def draw(workspace: Workspace, dataset: Dataset, view: View) -> None:
    """The picture in view, large, with its caption and the buttons that lead on."""
    if not view.pictures:
        st.markdown(":gray[No picture is in view: change the filter.]")
        return
    place = _place(view.pictures)
    picture = view.pictures[place]
    st.query_params[AT] = str(picture.id)
    left, right = st.columns([2, 3])
    with left:
        tile = gallery.of_picture(workspace, dataset, picture)
        gallery.picture(replace(tile, thumb=f"{tile.thumb}?large"))
    with right:
        flagged = sum(view.flagged(each) for each in view.pictures)
        st.markdown(f":gray[{place + 1:,} of {len(view.pictures):,}, {flagged:,} to look at]")
        box.draw(dataset, picture, view, height=220)
        _buttons(workspace, dataset, view, place)
    st.markdown(
        ":gray[:small[Ctrl+Enter works while you type, the letters outside the box. Accepting makes a machine's "
        "caption yours: no captioner will replace it.]]"
    )


def next_flagged(view: View, place: int) -> int | None:
    """The place of the next picture, from the one after `place` round to it, whose caption needs a look."""
    count = len(view.pictures)
    around = ((place + step) % count for step in range(1, count + 1))
    return next((each for each in around if view.flagged(view.pictures[each])), None)


def _buttons(workspace: Workspace, dataset: Dataset, view: View, place: int) -> None:
    picture, count = view.pictures[place], len(view.pictures)
    flagged = next_flagged(view, place)
    ways = (
        ("back", "Back", ":material/arrow_upward:", "K", place - 1 if place else None),
        ("next", "Next", ":material/arrow_downward:", "J", place + 1 if place + 1 < count else None),
        ("look", "Next to look at", ":material/flag:", "N", flagged),
    )
    with st.container(horizontal=True):
        following = view.pictures[place + 1] if place + 1 < count else None
        st.button(
            "Accept, next" if picture.caption else "Skip",
            type="primary",
            icon=":material/check:",
            key="review.accept",
            shortcut="Ctrl+Enter",
            on_click=_accept,
            args=(dataset, picture, following),
        )
        for name, label, icon, shortcut, target in ways:
            st.button(
                label,
                icon=icon,
                key=f"review.{name}",
                shortcut=shortcut,
                disabled=target is None,
                on_click=_go,
                args=(view.pictures[target] if target is not None else picture,),
            )
        machine = [picture] if picture.author not in (HUMAN, IMPORT) else []
        captioner.reroll_button(workspace, dataset, machine, key="review.reroll", shortcut="G")


def _place(pictures: Sequence[Picture]) -> int:
    """Where the picture of the session or the address is in view now, else the first."""
    wanted = str(st.session_state.get(f"review.{AT}") or st.query_params.get(AT, ""))
    return next((place for place, picture in enumerate(pictures) if str(picture.id) == wanted), 0)


def _go(picture: Picture) -> None:
    st.session_state[f"review.{AT}"] = picture.id


def _accept(dataset: Dataset, picture: Picture, following: Picture | None) -> None:
    """Make the caption a person's own, with what was typed last, then go on."""
    if not box.save(dataset, picture):
        return
    now = dataset.picture(picture.id, picture.kind)
    if now.caption and now.author != HUMAN:
        try:
            dataset.write_caption(
                now.id,
                now.caption,
                author=HUMAN,
                details={"accepted": f"from {now.author}"},
                expected_version=picture.version,
                kind=picture.kind,
            )
        except CaptionConflict as conflict:
            cards.problem(conflict)
            return
        box.note_saved(picture)
    if following is not None:
        _go(following)
