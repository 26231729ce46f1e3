"""Checking a dataset's pictures: what speaks against them, and setting them aside and bringing them back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import streamlit as st

from lora_lightning.datasets import aside, variations
from lora_lightning.datasets.measures import Measure, measure_all, stored
from lora_lightning.datasets.snapshot import Snapshot
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.datasets.triage import Finding, Group, duplicates, findings, leaks
from lora_lightning.train import split
from lora_lightning.ui import cards, crops, drafts, form, gallery
from lora_lightning.workspace import Workspace

PER_KIND = 12
RESOLUTIONS = (256, 512, 768, 1024)
KINDS = {
    "blurred": "Blurred",
    "small": "Too small",
    "aspect": "Unusual shape",
    "dark": "Very dark",
    "bright": "Very bright",
}
CELL = 190


def check(workspace: Workspace, snapshot: Snapshot) -> None:
    """The whole tab: measure on a click, then the findings, and what is set aside already."""
    dataset, pictures = snapshot.dataset, snapshot.pictures
    measures = stored(dataset)
    st.markdown(
        ":gray[Finds near duplicates, blur, and pictures that are too small, dark or bright. Nothing is deleted.]"
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        usual = min(crops.resolutions(workspace))
        resolution = st.selectbox(
            "Training resolution",
            RESOLUTIONS,
            RESOLUTIONS.index(usual) if usual in RESOLUTIONS else 1,
            key="triage.resolution",
            width=190,
            help="The smallest one that you will train at, in pixels.",
        )
        todo = [picture for picture in pictures if picture.id not in measures]
        if todo:
            _measure_button(dataset, todo)
    known = [picture for picture in pictures if picture.id in measures]
    if known:
        judged = _judged(known, measures, (snapshot.token, len(known), resolution))
        with cards.reported():
            _held_out(workspace, dataset, known, measures, judged.groups)
        _findings(workspace, dataset, known, judged)
    _set_aside(workspace, snapshot)


@dataclass(frozen=True)
class Judged:
    """What speaks against some pictures, and which of them are near duplicates."""

    found: list[Finding]
    groups: list[Group]


@st.cache_resource(max_entries=4, show_spinner="Comparing the pictures")
def _judged(_pictures: Sequence[Picture], _measures: Mapping[int, Measure], key: tuple[str, int, int]) -> Judged:
    groups = duplicates(_pictures, _measures)
    return Judged(findings(_pictures, _measures, [key[-1]], groups), groups)


def _measure_button(dataset: Dataset, todo: Sequence[Picture]) -> None:
    """Measure on a click; what is measured is kept, so whoever leaves before the end goes on from there."""
    label = f"Check {cards.counted(len(todo), 'picture')}"
    if not st.button(label, type="primary", icon=":material/fact_check:", key="triage.check"):
        return
    with cards.reported():
        bar = st.progress(0.0, text="Measuring")
        measure_all(dataset, todo, lambda done: bar.progress(done / len(todo), text=f"Measured {done:,}"))
        st.rerun()


def _findings(workspace: Workspace, dataset: Dataset, pictures: Sequence[Picture], judged: Judged) -> None:
    found, groups = judged.found, judged.groups
    if not found:
        st.success(
            f"Nothing speaks against {cards.counted(len(pictures), 'picture')}.",
            title="All good",
            icon=":material/check_circle:",
        )
        return
    if groups:
        _duplicates(workspace, dataset, groups, {each.picture: each for each in found if each.kind == "duplicate"})
    by_id = {picture.id: picture for picture in pictures}
    for kind, title in KINDS.items():
        if of_kind := [finding for finding in found if finding.kind == kind]:
            _kind(workspace, dataset, title, of_kind, by_id)


def _held_out(
    workspace: Workspace,
    dataset: Dataset,
    pictures: Sequence[Picture],
    measures: Mapping[int, Measure],
    groups: Sequence[Group],
) -> None:
    """Which pictures the Train page's draft would hold out, and whether copies of them would be trained on."""
    share = form.stored(drafts.load(workspace, "train"), "dataset.validation_share") or 0.0
    if not share:
        return
    chosen = split.choose([each.sha256 for each in pictures], [measures[each.id].dhash for each in pictures], share)
    out = {each.id for each in pictures if each.sha256 in chosen}
    leaking = leaks(groups, out)
    origins = {each.sha256: each.origin for each in variations.listed(dataset, "accepted")}
    split_up = [each for each in pictures if (origins.get(each.sha256, each.id) in out) != (each.id in out)]
    if split_up:
        names = ", ".join(cards.escape(each.name) for each in split_up)
        st.warning(f"Set these or their origins aside: {names}", title="Variations of held-out pictures are trained on")
    if leaking:
        names = ", ".join(cards.escape(group.best.name) for group in leaking)
        st.warning(f"Set copies of these aside: {names}", title="Held-out pictures have copies among those trained on")
    elif not split_up:
        st.markdown(f":gray[{cards.counted(len(out), 'picture')} held out for validation; none has a near duplicate "
                    "among those trained on.]")  # fmt: skip


def _duplicates(workspace: Workspace, dataset: Dataset, groups: Sequence[Group], found: Mapping[int, Finding]) -> None:
    others = {picture.id: found[picture.id].reason for group in groups for picture in group.others}
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(f"Near duplicates ({cards.counted(len(groups), 'group')})", anchor=False)
        if len(groups) > 1:
            label = f"Keep the best of each, set {len(others):,} aside"
            st.button(label, key="triage.best", on_click=_put_aside, args=(dataset, others))
    page = gallery.pager(len(groups), "triage.duplicates", PER_KIND)
    for group in groups[(page - 1) * PER_KIND : page * PER_KIND]:
        with st.container(border=True, key=f"triage.group.{group.best.id}"):
            _group(workspace, dataset, group, found)


def _group(workspace: Workspace, dataset: Dataset, group: Group, found: Mapping[int, Finding]) -> None:
    """The members side by side; all but the best are ticked."""
    ticked: dict[int, str] = {}
    with st.grid("auto", min_column_width=CELL):
        for picture in (group.best, *group.others):
            with st.container():
                best = picture is group.best
                reason = found[picture.id].reason if not best else f"nearly the same as {group.others[0].name}"
                _tile(workspace, dataset, picture, picture.caption or "no caption")
                said = ":green-badge[:material/star: The best]" if best else f":gray[:small[{cards.escape(reason)}]]"
                st.markdown(f":small[{picture.width} x {picture.height}] {said}")
                if st.checkbox("Set aside", not best, key=f"triage.tick.{dataset.name}.{picture.id}.{best}"):
                    ticked[picture.id] = reason
    with st.container(horizontal=True):
        st.button(
            f"Set {cards.counted(len(ticked), 'picture')} aside",
            key=f"triage.aside.{group.best.id}",
            icon=":material/archive:",
            type="primary",
            disabled=not ticked,
            on_click=_put_aside,
            args=(dataset, ticked),
        )
        source = group.captioned
        if source is not None and source is not group.best and source.caption != group.best.caption:
            st.button(
                f"Copy the caption of {source.name} to {group.best.name}",
                key=f"triage.copy.{group.best.id}",
                icon=":material/content_copy:",
                on_click=_copy,
                args=(dataset, source, group.best),
            )


def _kind(
    workspace: Workspace, dataset: Dataset, title: str, found: Sequence[Finding], by_id: Mapping[int, Picture]
) -> None:
    kind = found[0].kind
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(f"{title} ({len(found):,})", anchor=False)
        if len(found) > 1:
            everything = {each.picture: each.reason for each in found}
            st.button(f"Set all {len(found):,} aside", key=f"triage.all.{kind}", on_click=_put_aside,
                      args=(dataset, everything))  # fmt: skip
    page = gallery.pager(len(found), f"triage.{kind}", PER_KIND)
    with st.grid("auto", min_column_width=CELL):
        for each in found[(page - 1) * PER_KIND : page * PER_KIND]:
            with st.container(border=True):
                _tile(workspace, dataset, by_id[each.picture], each.reason)
                st.markdown(f":gray[:small[{cards.escape(each.suggestion)}]]")
                st.button(
                    "Set aside",
                    key=f"triage.one.{kind}.{each.picture}",
                    icon=":material/archive:",
                    on_click=_put_aside,
                    args=(dataset, {each.picture: each.reason}),
                )


def _set_aside(workspace: Workspace, snapshot: Snapshot) -> None:
    """What is set aside, with the way back."""
    dataset, resting = snapshot.dataset, snapshot.aside
    if not resting:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(f"Set aside ({len(resting):,})", anchor=False)
        if len(resting) > 1:
            everyone = [picture.id for picture in resting]
            st.button("Bring all back", key="triage.back.all", on_click=_bring_back, args=(dataset, everyone))
    page = gallery.pager(len(resting), "triage.resting", PER_KIND)
    with st.grid("auto", min_column_width=CELL):
        for picture in resting[(page - 1) * PER_KIND : page * PER_KIND]:
            with st.container(border=True):
                _tile(workspace, dataset, picture, picture.aside)
                st.button(
                    "Bring back",
                    key=f"triage.back.{picture.id}",
                    icon=":material/unarchive:",
                    on_click=_bring_back,
                    args=(dataset, [picture.id]),
                )


def _tile(workspace: Workspace, dataset: Dataset, picture: Picture, text: str) -> None:
    gallery.square(replace(gallery.of_picture(workspace, dataset, picture), text=text))


def _put_aside(dataset: Dataset, reasons: Mapping[int, str]) -> None:
    with cards.reported():
        done = aside.set_aside(dataset, reasons)
        st.toast(f"{cards.counted(len(done), 'picture')} set aside", icon=":material/archive:")


def _bring_back(dataset: Dataset, ids: Iterable[int]) -> None:
    with cards.reported():
        aside.bring_back(dataset, ids)
        st.toast("Back in use", icon=":material/unarchive:")


def _copy(dataset: Dataset, source: Picture, target: Picture) -> None:
    with cards.reported():
        details = {"source": source.name}
        dataset.write_caption(
            target.id, source.caption, author=source.author, details=details, expected_version=target.version
        )
        st.toast(f"Copied to {cards.escape(target.name)}", icon=":material/content_copy:")
