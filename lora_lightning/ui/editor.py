"""Caption cards: a picture beside its text. What is typed is saved when the box is left, and nothing is overwritten."""

import time
from dataclasses import dataclass

import streamlit as st

from lora_lightning.datasets.store import CaptionVersion, Dataset, Picture
from lora_lightning.datasets.tokens import Meter
from lora_lightning.errors import CaptionConflict, LoraLightningError
from lora_lightning.ui import cards, gallery
from lora_lightning.ui.filters import View
from lora_lightning.workspace import Workspace

PER_PAGE = 20
PASSAGE_CHARACTERS = 160
METERED = ("clip", "t5")
"""Checks that the line of token counts tells of by itself."""


@dataclass(frozen=True)
class Conflict:
    """Two texts for one picture: the one typed here, and the one stored meanwhile."""

    mine: str
    theirs: str


def cards_of(workspace: Workspace, dataset: Dataset, view: View) -> None:
    """A page of cards for the pictures in view."""
    guess = " Token counts are estimates: the model's tokenizer is not on this machine." if _estimated(view) else ""
    shown = cards.counted(len(view.pictures), "picture")
    st.markdown(f":gray[{shown}. A caption is saved when you leave its box.{guess}]")
    page = gallery.pager(len(view.pictures), "captions", PER_PAGE)
    for picture in view.pictures[(page - 1) * PER_PAGE : page * PER_PAGE]:
        with st.container(border=True):
            _card(workspace, dataset, picture, view)


def _card(workspace: Workspace, dataset: Dataset, picture: Picture, view: View) -> None:
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
            st.markdown(f":gray[:small[{cards.escape(_origin(picture) + _lengths(picture, view))}]]", width="content")
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
            if picture.version:
                _history(dataset, picture, f"{key}.history")
        if picture.caption:
            _findings(picture, view)
        _conflict(dataset, picture)


def _lengths(picture: Picture, view: View) -> str:
    """How many tokens a caption has for each text encoder, of how many that it reads."""
    if not picture.caption:
        return ""
    readings = {meter.name: meter.read(picture.caption) for meter in _meters(view)}
    parts = (f"{name} {r.tokens}/{r.limit}{' (estimate)' if r.estimated else ''}" for name, r in readings.items())
    return f", tokens {', '.join(parts)}"


def _findings(picture: Picture, view: View) -> None:
    """What the text encoders do not read of a caption, and what the checks found in it."""
    lines = []
    for meter in _meters(view):
        if cut := meter.read(picture.caption).cut:
            colour = "red" if meter is view.meters.t5 else "gray"
            lines.append(f":{colour}[:small[{meter.name} does not read: {cards.escape(_short(cut.strip()))}]]")
    for check in view.checks:
        if check.name not in METERED and (passage := check.passages.get(picture.id)):
            lines.append(f":orange-badge[{cards.escape(check.title)}] :small[{cards.escape(_short(passage))}]")
    if lines:
        st.markdown("  \n".join(lines))


def _meters(view: View) -> tuple[Meter, Meter]:
    return view.meters.clip, view.meters.t5


def _estimated(view: View) -> bool:
    return any(meter.estimated for meter in _meters(view))


def _short(text: str) -> str:
    return text if len(text) <= PASSAGE_CHARACTERS else f"{text[:PASSAGE_CHARACTERS].rstrip()} …"


def _origin(picture: Picture) -> str:
    size = f"{picture.width} x {picture.height}"
    saved = st.session_state.get(_saved_key(picture), "")
    return (f"✓ Saved {saved}, " if saved else "") + f"{size}, {_author(picture.author)}"


def _history(dataset: Dataset, picture: Picture, key: str) -> None:
    """A button that opens every version of a caption; they are read when it is opened."""
    panel = st.popover("History", icon=":material/history:", key=key, on_change="rerun")
    if not panel.open:
        return
    with panel:
        for version in reversed(dataset.history(picture.id)):
            _version(dataset, picture, version, key)


def _author(name: str) -> str:
    """Who wrote a caption, in words."""
    known = {"": "no caption", "human": "written by a person", "import": "imported"}
    return known.get(name, f"written by {name}")


def _version(dataset: Dataset, picture: Picture, version: CaptionVersion, key: str) -> None:
    about = ", ".join(filter(None, (_author(version.author), cards.ago(version.written), _cause(version))))
    st.markdown(f":gray[:small[**Version {version.version}**, {cards.escape(about)}]]")
    st.markdown(cards.escape(version.text) or ":gray[no caption]")
    if version.version == picture.version:
        st.markdown(":green-badge[:material/check: This is the caption now]")
    else:
        st.button(
            "Restore",
            key=f"{key}.{version.version}",
            icon=":material/settings_backup_restore:",
            on_click=_restore,
            args=(dataset, picture, version),
        )


def _cause(version: CaptionVersion) -> str:
    """What made a version besides typing."""
    details = version.details
    if details.get("restores") is not None:
        return f"restored from {details['restores']}" if details["restores"] else "taken back"
    for name in ("edit", "prompt", "source"):
        if details.get(name):
            return f"{name}: {details[name]}"
    return ""


def _restore(dataset: Dataset, picture: Picture, version: CaptionVersion) -> None:
    """Write the version again as the newest, by its own author, unless the caption changed since the list was drawn."""
    origin = version.details.get("restores", version.version)
    with cards.reported():
        dataset.write_caption(
            picture.id,
            version.text,
            author=version.author,
            details={"undoes": picture.version, "restores": origin},
            expected_version=picture.version,
        )
        _note_saved(picture)


def _save(dataset: Dataset, picture: Picture, key: str) -> None:
    text = st.session_state[key]
    try:
        dataset.write_caption(picture.id, text, author="human", expected_version=picture.version)
    except CaptionConflict as conflict:
        st.session_state[_conflict_key(picture)] = Conflict(text, conflict.current)
    except LoraLightningError as error:
        cards.problem(error)
    else:
        _note_saved(picture)


def _undo(dataset: Dataset, picture: Picture) -> None:
    dataset.undo(picture.id)
    _note_saved(picture)


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
        _note_saved(picture)


def _note_saved(picture: Picture) -> None:
    st.session_state[_saved_key(picture)] = time.strftime("%H:%M:%S")


def _conflict_key(picture: Picture) -> str:
    return f"caption.conflict.{picture.sha256}"


def _saved_key(picture: Picture) -> str:
    return f"caption.saved.{picture.sha256}"
