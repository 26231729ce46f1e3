"""Variations of a dataset's pictures: drawn by a job, looked at beside their origins, taken in or left out."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from lora_lightning import recipe
from lora_lightning.datasets import variations
from lora_lightning.datasets.choosing import named
from lora_lightning.datasets.snapshot import Snapshot
from lora_lightning.datasets.store import Dataset
from lora_lightning.datasets.tokens import meters
from lora_lightning.datasets.variations import Variation
from lora_lightning.models.config import ModelConfig, resolve_base
from lora_lightning.runs import launch
from lora_lightning.runs.folder import runs
from lora_lightning.ui import cards, drafts, form, gallery, monitor
from lora_lightning.ui.gallery import Tile
from lora_lightning.workspace import Workspace

FIELDS = (
    *("generate.vary_pictures", "generate.strength", "generate.images_per_prompt", "model.base", "generate.steps"),
    *("generate.guidance", "generate.width", "generate.height", "generate.seed"),
)
PROMPTS = "generate.prompts"
NO_LORA = "none"
PER_PAGE = 6
DECIDED_SHOWN = 15
NAME_ROOM = 52
"""Of a dataset's name in that of its runs, which have 64 characters."""


def draw(workspace: Workspace, snapshot: Snapshot) -> None:
    """The whole tab: the form with its job, what waits for a word, and what was decided."""
    st.markdown(
        ":gray[Draws pictures of this dataset anew with a model: more of what there is too little of. None joins "
        "before you have seen it.]"
    )
    waiting = variations.listed(snapshot.dataset, "waiting")
    with st.expander("Draw variations", expanded=not waiting, icon=":material/brush:", key="vary.form"):
        _form(workspace, snapshot)
    jobs = [run for run in runs(workspace) if run.name.startswith(f"{_name(snapshot.dataset)}.generate")]
    for run in jobs[:1]:
        if run.status().state != "completed":
            monitor.card(workspace, run, key=f"vary.{run.name}")
    if waiting:
        _review(workspace, snapshot, waiting)
    _decided(workspace, snapshot)


def _name(dataset: Dataset) -> str:
    return f"{dataset.name[:NAME_ROOM]}-variations"


def _form(workspace: Workspace, snapshot: Snapshot) -> None:
    """What is drawn, from which pictures, and the button that starts it."""
    dataset, draft = snapshot.dataset, drafts.load(workspace, "vary")
    of_this = {"generate": {"vary": dataset.name}}
    values = form.merge(form.draw("vary", [PROMPTS], form.merge(draft, of_this)), of_this)
    st.markdown(":gray[:small[Without a prompt each picture is drawn from its caption.]]")
    with st.grid("auto", min_column_width=160, vertical_alignment="bottom"):
        values = form.merge(values, form.draw("vary", FIELDS, form.merge(draft, of_this)))
        values["generate"]["loras"] = _loras(workspace)
    drafts.save(workspace, "vary", {"name": _name(dataset)} | values)
    with cards.reported():
        count = _count(snapshot, values)
        label = f"Draw {cards.counted(count, 'variation')}"
        if st.button(label, type="primary", icon=":material/brush:", disabled=not count, key="vary.start"):
            job = recipe.parse({"name": _name(dataset), "trigger": _trigger(workspace)} | values)
            launch.start(workspace, "generate", job.name, job.to_yaml())
            st.rerun()


def _loras(workspace: Workspace) -> list[dict[str, Any]]:
    finished = workspace.lora_names()
    chosen = st.selectbox("LoRA", [NO_LORA, *finished], key="vary.lora") if finished else NO_LORA
    if chosen == NO_LORA:
        return []
    return [{"name": chosen, "weight": st.number_input("Weight", -4.0, 4.0, 1.0, step=0.1, key="vary.weight")}]


def _trigger(workspace: Workspace) -> str:
    return form.stored(drafts.load(workspace, "train"), "trigger") or ""


def _count(snapshot: Snapshot, values: dict[str, Any]) -> int:
    """How many variations that makes.

    Raises:
        InputError: the filter has a mistake.
        DatasetError: there is no picture of a number.
    """
    asked = values["generate"]
    gauge = meters(resolve_base(values["model"]["base"] or ModelConfig().base))
    chosen = named(snapshot.pictures, asked["vary_pictures"], gauge, "", "generate.vary_pictures")
    return len(chosen) * max(1, len(asked["prompts"])) * (asked["images_per_prompt"] or 0)


def _review(workspace: Workspace, snapshot: Snapshot, waiting: Sequence[Variation]) -> None:
    """Each beside its origin, with a word for it; or one for all."""
    dataset = snapshot.dataset
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(f"Waiting for your word ({len(waiting):,})", anchor=False)
        if len(waiting) > 1:
            st.button(f"Accept all {len(waiting):,}", key="vary.accept.all", on_click=_accept,
                      args=(workspace, dataset, waiting))  # fmt: skip
            st.button(f"Reject all {len(waiting):,}", key="vary.reject.all", on_click=_reject, args=(dataset, waiting))
    page = gallery.pager(len(waiting), "vary", PER_PAGE)
    for each in waiting[(page - 1) * PER_PAGE : page * PER_PAGE]:
        with st.container(border=True, key=f"vary.pair.{each.id}"):
            _pair(workspace, snapshot, each)


def _pair(workspace: Workspace, snapshot: Snapshot, each: Variation) -> None:
    dataset, origin = snapshot.dataset, snapshot.by_id[each.origin]
    left, right = st.columns(2)
    with left:
        gallery.picture(gallery.of_picture(workspace, dataset, origin))
        said = cards.escape(origin.caption or "no caption")
        st.markdown(f":small[{said}]  \n:gray[:small[{cards.escape(origin.name)}]]")
    with right:
        path = variations.folder(dataset) / each.file
        gallery.picture(Tile(gallery.small(workspace, path), gallery.url(workspace, path), each.file, each.caption))
        st.markdown(f":small[{cards.escape(each.caption)}]  \n:gray[:small[{cards.escape(_drawn_from(each))}]]")
    with st.container(horizontal=True):
        st.button("Accept", type="primary", icon=":material/check:", key=f"vary.accept.{each.id}", on_click=_accept,
                  args=(workspace, dataset, [each]))  # fmt: skip
        st.button("Reject", icon=":material/close:", key=f"vary.reject.{each.id}", on_click=_reject,
                  args=(dataset, [each]))  # fmt: skip


def _drawn_from(each: Variation) -> str:
    told = each.details
    parts = (f"{name} {told[name]}" for name in ("strength", "seed", "steps", "guidance") if name in told)
    return ", ".join((told.get("model", ""), *parts))


def _decided(workspace: Workspace, snapshot: Snapshot) -> None:
    """What was decided last, each with the way back."""
    found = variations.listed(snapshot.dataset, "accepted", "rejected")
    if not found:
        return
    with st.expander(f"Decided ({len(found):,})", icon=":material/history:", key="vary.decided"):
        for each in found[:DECIDED_SHOWN]:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.button("Take back", icon=":material/undo:", key=f"vary.back.{each.id}", on_click=_take_back,
                          args=(snapshot.dataset, [each]))  # fmt: skip
                colour = "green" if each.state == "accepted" else "gray"
                origin = cards.escape(snapshot.by_id[each.origin].name)
                st.markdown(f":{colour}-badge[{each.state}] from {origin} :gray[:small[{_drawn_from(each)}]]")


def _accept(workspace: Workspace, dataset: Dataset, chosen: Sequence[Variation]) -> None:
    with cards.reported():
        joined = variations.accept(workspace, dataset, chosen)
        st.toast(f"{cards.counted(len(joined), 'picture')} joined", icon=":material/check:")


def _reject(dataset: Dataset, chosen: Sequence[Variation]) -> None:
    with cards.reported():
        variations.reject(dataset, chosen)
        st.toast(f"{cards.counted(len(chosen), 'variation')} left out", icon=":material/close:")


def _take_back(dataset: Dataset, chosen: Sequence[Variation]) -> None:
    with cards.reported():
        variations.take_back(dataset, chosen)
        st.toast("It waits again", icon=":material/undo:")
