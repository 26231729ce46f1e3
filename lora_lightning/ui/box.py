"""One caption to read and write: saved when its box is left, with every version, and nothing ever overwritten."""

import time
from dataclasses import dataclass

import streamlit as st

from lora_lightning.datasets import variations
from lora_lightning.datasets.kinds import CAPTION, USUAL
from lora_lightning.datasets.names import one_line
from lora_lightning.datasets.store import HUMAN, IMPORT, CaptionVersion, Dataset, Picture
from lora_lightning.errors import CaptionConflict, LoraLightningError
from lora_lightning.ui import cards, diff
from lora_lightning.ui.filters import View

PASSAGE_CHARACTERS = 160
METERED = ("clip", "t5")
"""Checks that the line of token counts tells of by itself."""


@dataclass(frozen=True)
class Conflict:
    """Two texts for one picture: the one typed here, and the one stored meanwhile."""

    mine: str
    theirs: str


def draw(dataset: Dataset, picture: Picture, view: View, *, height: int = 110) -> None:
    """The caption's box, how long it is, what the checks found, and its earlier versions."""
    key = _key(dataset, picture)
    st.text_area(
        picture.name,
        picture.caption,
        key=key,
        height=height,
        placeholder="No caption yet: describe what is to be seen, in one sentence or two.",
        on_change=_left,
        args=(dataset, picture),
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f":gray[:small[{cards.escape(_origin(picture) + _lengths(picture, view))}]]", width="content")
        if picture.version > 1:
            st.button("Undo", key=f"{key}.undo", icon=":material/undo:", type="tertiary", on_click=_undo,
                      args=(dataset, picture), help="Back to the caption before this one.")  # fmt: skip
        if picture.version:
            _history(dataset, picture, f"{key}.history")
        _more(dataset, picture, view)
    if picture.caption:
        _findings(picture, view)
    _conflict(dataset, picture)


def save(dataset: Dataset, picture: Picture) -> bool:
    """Store what the box of a picture holds, unless that is stored already; whether it is stored now.

    A text typed over a caption that changed meanwhile is kept beside it, for the person to choose.
    """
    text = st.session_state.get(_key(dataset, picture), picture.caption)
    if text == picture.caption:
        return True
    try:
        _write(dataset, picture, text)
    except CaptionConflict as conflict:
        if conflict.current == one_line(text):
            return True
        st.session_state[_conflict_key(picture)] = Conflict(text, conflict.current)
        return False
    except LoraLightningError as error:
        cards.problem(error)
        return False
    note_saved(picture)
    return True


def _left(dataset: Dataset, picture: Picture) -> None:
    save(dataset, picture)


def _write(dataset: Dataset, picture: Picture, text: str) -> None:
    dataset.write_caption(picture.id, text, author=HUMAN, expected_version=picture.version, kind=picture.kind)


def note_saved(picture: Picture) -> None:
    """Show beside the caption that it was saved, and when."""
    st.session_state[_saved_key(picture)] = time.strftime("%H:%M:%S")


def _lengths(picture: Picture, view: View) -> str:
    """How many tokens a caption has for each text encoder, of how many that it reads."""
    if not picture.caption:
        return ""
    readings = {meter.name: meter.read(picture.caption) for meter in view.meters.both}
    parts = (f"{name} {r.tokens}/{r.limit}{' (estimate)' if r.estimated else ''}" for name, r in readings.items())
    return f", tokens {', '.join(parts)}"


def _findings(picture: Picture, view: View) -> None:
    """What the text encoders do not read of a caption, and what the checks found in it."""
    lines = []
    for meter in view.meters.both:
        if cut := meter.read(picture.caption).cut:
            colour = "red" if meter is view.meters.t5 else "gray"
            lines.append(f":{colour}[:small[{meter.name} does not read: {cards.escape(_short(cut.strip()))}]]")
    for check in view.checks:
        if check.name not in METERED and (passage := check.passages.get(picture.id)):
            lines.append(f":orange-badge[{cards.escape(check.title)}] :small[{cards.escape(_short(passage))}]")
    if lines:
        st.markdown("  \n".join(lines))


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
        versions = dataset.history(picture.id, picture.kind)
        befores = ["", *(version.text for version in versions)]
        for version, before in reversed(list(zip(versions, befores, strict=False))):
            _version(dataset, picture, version, before, key)


def _author(name: str) -> str:
    """Who wrote a caption, in words."""
    known = {"": "no caption", HUMAN: "written by a person", IMPORT: "imported", variations.AUTHOR: "drawn"}
    return known.get(name, f"written by {name}")


def _version(dataset: Dataset, picture: Picture, version: CaptionVersion, before: str, key: str) -> None:
    about = ", ".join(filter(None, (_author(version.author), cards.ago(version.written), _cause(version))))
    st.markdown(f":gray[:small[**Version {version.version}**, {cards.escape(about)}]]")
    if before and version.text:
        diff.show([(before, version.text)], [""])
    else:
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
    for name in ("edit", "prompt", "source", "accepted"):
        if details.get(name):
            return f"{name}: {details[name]}"
    return ""


def _more(dataset: Dataset, picture: Picture, view: View) -> None:
    """The picture's short caption and tags, and any other further ones, beside its caption."""
    if picture.kind != CAPTION:
        return
    own = view.snapshot.alternates.get(picture.id, {})
    label = f"More ({len(own)})" if own else "More"
    panel = st.popover(label, icon=":material/list_alt:", key=f"more.{picture.id}", on_change="rerun",
                       help="A short caption and tags, for trainings that draw among several captions.")  # fmt: skip
    if not panel.open:
        return
    with panel:
        for kind in dict.fromkeys((*USUAL, *own)):
            other = dataset.picture(picture.id, kind)
            key = f"more.{dataset.name}.{picture.id}.{kind}.{other.version}"
            st.text_area(
                kind.capitalize(), other.caption, key=key, height=80, on_change=_save_other, args=(dataset, other, key)
            )


def _save_other(dataset: Dataset, other: Picture, key: str) -> None:
    with cards.reported():
        _write(dataset, other, st.session_state[key])
        st.toast(f"{other.kind.capitalize()} saved", icon=":material/check:")


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
            kind=picture.kind,
        )
        note_saved(picture)


def _undo(dataset: Dataset, picture: Picture) -> None:
    dataset.undo(picture.id, picture.kind)
    note_saved(picture)


def _conflict(dataset: Dataset, picture: Picture) -> None:
    conflict = st.session_state.get(_conflict_key(picture))
    if conflict is None:
        return
    st.warning(
        "Both texts are here; neither is lost.",
        title="This caption was changed elsewhere while you wrote",
        icon=":material/call_split:",
    )
    diff.show([(conflict.theirs, conflict.mine)], ["Stored, and yours"])
    with st.container(horizontal=True):
        keys = f"conflict.{picture.sha256}"
        st.button("Save mine", key=f"{keys}.mine", on_click=_resolve, args=(dataset, picture, conflict.mine))
        st.button("Keep the stored one", key=f"{keys}.theirs", on_click=_resolve, args=(dataset, picture, None))


def _resolve(dataset: Dataset, picture: Picture, mine: str | None) -> None:
    del st.session_state[_conflict_key(picture)]
    if mine is not None:
        _write(dataset, picture, mine)
        note_saved(picture)


def _key(dataset: Dataset, picture: Picture) -> str:
    """Of the box: another version is another box, so that a stale text never stands over a new one."""
    return f"{picture.kind}.{dataset.name}.{picture.id}.{picture.version}"


def _conflict_key(picture: Picture) -> str:
    return f"{picture.kind}.conflict.{picture.sha256}"


def _saved_key(picture: Picture) -> str:
    return f"{picture.kind}.saved.{picture.sha256}"
