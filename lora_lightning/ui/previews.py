"""Up to three settings of the captioner side by side on four pictures, before the long run."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from lora_lightning.caption.config import MOST_PREVIEWS, PREVIEW_PICTURES, PROMPT, parse_changes
from lora_lightning.datasets.snapshot import Snapshot
from lora_lightning.recipe import read
from lora_lightning.runs.folder import RunFolder
from lora_lightning.ui import cards, drafts, form, gallery
from lora_lightning.workspace import Workspace

COMPARED = ("caption.captioner", "caption.preset", "caption.temperature")
NAMES = "ABC"


def settings(values: Mapping[str, Any]) -> list[str]:
    """The widgets of the settings to compare; each as the JSON object that `caption.preview` wants."""
    st.markdown(f":gray[On {PREVIEW_PICTURES} pictures; no caption is written. A is the form as it stands.]")
    count = st.segmented_control("Settings", [1, 2, MOST_PREVIEWS], default=2, required=True, key="preview.count")
    found = ["{}"]
    for column, name in zip(st.columns(MOST_PREVIEWS - 1), NAMES[1:count], strict=False):
        with column:
            st.markdown(f"**{name}**")
            other = form.draw(f"preview.{name}", COMPARED, values)["caption"]
            if other["preset"] == "none":
                other |= form.draw(f"preview.{name}", ["caption.prompt"], values)["caption"]
        found.append(json.dumps(changes(values["caption"], other), ensure_ascii=False))
    return found


def changes(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What makes one setting of the captioner into another; a preset takes the prompt's place."""
    told = dict(other) if other["preset"] == "none" else {**other, "prompt": PROMPT}
    held = {"prompt": PROMPT, **one}
    return {name: value for name, value in told.items() if value != held.get(name)}


def latest(jobs: Sequence[RunFolder]) -> RunFolder | None:
    """The last comparison among some captionings, unless captions were written since."""
    ended = [job for job in jobs if job.status().state == "completed"]
    return ended[0] if ended and _report(ended[0]) else None


def show(workspace: Workspace, snapshot: Snapshot, run: RunFolder) -> None:
    """The pictures of a comparison with what each setting said, and a button that takes a setting over."""
    report = _report(run)
    asked = read(run.recipe_path)["caption"]["preview"]
    with st.expander("Settings compared", expanded=True, icon=":material/compare:", key=f"preview.of.{run.name}"):
        heads = st.columns([2, *[3] * len(asked)])[1:]
        for head, name, text, made in zip(heads, NAMES, asked, report["settings"], strict=False):
            with head:
                told = (
                    ", ".join(f"{key} {value}" for key, value in parse_changes(text).items()) or "the form as it stood"
                )
                st.markdown(f"**{name}** :small[{cards.escape(told)}]")
                st.markdown(f":gray[:small[{made['seconds_per_picture']:.2f} s a picture]]")
                if parse_changes(text):
                    key = f"preview.use.{run.name}.{name}"
                    st.button(f"Use {name}", key=key, on_click=_use, args=(workspace, text))
        for row in report["pictures"]:
            _row(workspace, snapshot, row)


def _row(workspace: Workspace, snapshot: Snapshot, row: Mapping[str, Any]) -> None:
    picture = snapshot.by_id.get(row["id"])
    first, *others = st.columns([2, *[3] * len(row["captions"])])
    if picture is not None:
        with first:
            gallery.picture(gallery.of_picture(workspace, snapshot.dataset, picture))
    for column, name, caption in zip(others, NAMES, row["captions"], strict=False):
        text = cards.escape(caption.get("text", "")) or f":red[{cards.escape(caption.get('reason', 'nothing'))}]"
        column.markdown(f"**{name}** :small[{text}]")


def _use(workspace: Workspace, text: str) -> None:
    """Lay a setting over the form."""
    draft = drafts.load(workspace, "caption")
    drafts.save(workspace, "caption", form.merge(draft, {"caption": parse_changes(text)}))
    form.forget("caption")


def _report(run: RunFolder) -> dict[str, Any]:
    found: dict[str, Any] = run.result().get("report", {}).get("preview", {})
    return found
