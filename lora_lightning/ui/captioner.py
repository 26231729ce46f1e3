"""The captioner: what it is asked, how, and which pictures; started as a job like any other."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from lora_lightning import recipe
from lora_lightning.caption.presets import advice
from lora_lightning.caption.prompts import BOOKS, LENGTHS
from lora_lightning.datasets.snapshot import Snapshot
from lora_lightning.datasets.store import HUMAN, IMPORT, Dataset, Picture
from lora_lightning.runs import launch
from lora_lightning.runs.folder import RunFolder, runs
from lora_lightning.ui import cards, drafts, form, monitor, previews
from lora_lightning.workspace import Workspace

FIRST = ("caption.captioner", "caption.preset", "caption.existing")
PROMPT = "caption.prompt"
"""Fields that are always in sight."""

ELSEWHERE = ("caption.pictures", "caption.preview")
"""Fields that buttons fill in."""

FAILED = 10
"""Pictures that could not be described, so many are named."""


def panel(workspace: Workspace, snapshot: Snapshot) -> bool:
    """The form with its start button, the comparison of settings, and the job at work; whether there is one."""
    dataset, pictures = snapshot.dataset, snapshot.pictures
    jobs = [run for run in runs(workspace) if run.name.startswith(f"{dataset.name}.caption")]
    busy = [run for run in jobs if run.status().live]
    bare = 2 * sum(not picture.caption for picture in pictures) > len(pictures)
    with st.expander("Captioner", expanded=bare and not busy, icon=":material/smart_toy:"):
        values = _form(workspace, dataset)
        todo = wanted(snapshot.of(values["caption"]["written_as"]), values["caption"]["existing"])
        label = f"Caption {cards.counted(len(todo), 'picture')}"
        idle = todo and not busy
        if st.button(label, type="primary", icon=":material/play_arrow:", disabled=not idle, key="caption.start"):
            with cards.reported():
                start(workspace, dataset, values)
                st.rerun()
        if not todo:
            st.markdown(":gray[Every picture has a caption.]")
        compare = st.expander("Compare settings", icon=":material/compare:", key="preview.open", on_change="rerun")
        if compare.open:
            with compare:
                asked = previews.settings(values)
                if st.button("Compare", type="primary", key="preview.start", disabled=bool(busy)):
                    with cards.reported():
                        start(workspace, dataset, form.merge(values, {"caption": {"preview": asked}}))
                        st.rerun()
    for run in busy or [run for run in jobs[:1] if run.status().state != "completed"]:
        monitor.card(workspace, run, key=f"captions.{run.name}")
    if jobs and not busy:
        _failed(workspace, dataset, jobs[0])
        if compared := previews.latest(jobs):
            previews.show(workspace, snapshot, compared)
    return bool(busy)


def wanted(pictures: Sequence[Picture], existing: str) -> list[Picture]:
    """The pictures that a captioner would describe under a rule for existing captions."""
    people = (HUMAN, IMPORT)
    return [
        each
        for each in pictures
        if not each.caption
        or existing == "replace_all"
        or (existing == "replace_machine" and each.author not in people)
    ]


def start(workspace: Workspace, dataset: Dataset, values: Mapping[str, Any], seed: int = 0) -> RunFolder:
    """Start captioning with the values of the form.

    Raises:
        RecipeError: they do not fit together.
    """
    triggers = (form.stored(drafts.load(workspace, draft), "trigger") for draft in ("captions", "train"))
    trigger = next((each for each in triggers if each is not None), "")
    named = {"name": dataset.name, "dataset": {"name": dataset.name}, "trigger": trigger, "seed": seed}
    job = recipe.parse(form.merge(named, values))
    return launch.start(workspace, "caption", dataset.name, job.to_yaml())


def reroll_button(
    workspace: Workspace, dataset: Dataset, pictures: Sequence[Picture], *, key: str, shortcut: str | None = None
) -> None:
    """A button that has a captioner describe pictures anew; not drawn where no captioner wrote anything."""
    if not pictures:
        return
    label = f"Re-roll {cards.counted(len(pictures), 'caption')}" if len(pictures) > 1 else "Re-roll"
    st.button(
        label,
        icon=":material/casino:",
        key=key,
        shortcut=shortcut,
        help="Describe anew, with another seed, what a captioner wrote. The captions so far stay in the history.",
        on_click=_reroll,
        args=(workspace, dataset, pictures),
    )


def _failed(workspace: Workspace, dataset: Dataset, run: RunFolder) -> None:
    """The pictures that the last captioning could not describe, with the reasons and another try."""
    failed = run.result().get("report", {}).get("failed", [])
    if not failed:
        return
    st.warning(
        "\n".join(f"- {cards.escape(str(row['file']))}: {cards.escape(str(row['reason']))}" for row in failed[:FAILED]),
        title=f"{cards.counted(len(failed), 'picture')} could not be described",
        icon=":material/warning:",
    )
    ids = ",".join(str(row["id"]) for row in failed)
    again = {"pictures": ids, "existing": "keep"}
    said = f"{cards.counted(len(failed), 'picture')} will be tried again"
    st.button(
        "Try these again",
        icon=":material/replay:",
        key="caption.again",
        on_click=_again,
        args=(workspace, dataset, again, said),
    )


def _reroll(workspace: Workspace, dataset: Dataset, pictures: Sequence[Picture]) -> None:
    ids = ",".join(str(picture.id) for picture in pictures)
    chosen = {"existing": "replace_machine", "pictures": ids, "written_as": pictures[0].kind}
    _again(workspace, dataset, chosen, f"{cards.counted(len(pictures), 'caption')} will be written anew")


def _again(workspace: Workspace, dataset: Dataset, chosen: Mapping[str, str], said: str) -> None:
    """Start the captioner of the form on some pictures, with another seed."""
    draft = dict(form.stored(drafts.load(workspace, "caption"), "caption") or {})
    with cards.reported():
        start(workspace, dataset, {"caption": {**draft, **chosen}}, seed=time.time_ns() % 2**31)
        st.toast(said, icon=":material/casino:")


def _form(workspace: Workspace, dataset: Dataset) -> dict[str, Any]:
    """The fields, as the draft on the disk has them at first."""
    draft = drafts.load(workspace, "caption")
    fields = [path for path in form.paths("caption") if path not in (*FIRST, PROMPT, *ELSEWHERE)]
    with st.grid("auto", min_column_width=220, vertical_alignment="bottom"):
        values = form.draw("caption", FIRST, draft)
    if values["caption"]["preset"] == "none":
        values = form.merge(values, form.draw("caption", [PROMPT], draft))
    asked = values["caption"]
    if warning := advice(asked["captioner"], asked["prompt"]) if "prompt" in asked else "":
        st.warning(cards.capital(warning), icon=":material/info:")
    if asked["captioner"] in BOOKS and "prompt" in asked:
        _composer(workspace, draft, asked["captioner"])
    more = st.expander("More settings", icon=":material/tune:", key="caption.more")
    with more, st.grid("auto", min_column_width=220, vertical_alignment="bottom"):
        values = form.merge(values, form.draw("caption", fields, draft))
    drafts.save(workspace, "caption", {"name": dataset.name, "dataset": {"name": dataset.name}} | values)
    return values


def _composer(workspace: Workspace, draft: Mapping[str, Any], captioner: str) -> None:
    """A prompt put together from the sentences that JoyCaption was trained with."""
    book = BOOKS[captioner]
    panel = st.popover("Compose a prompt", icon=":material/construction:", key="caption.compose", on_change="rerun")
    if not panel.open:
        return
    with panel:
        kind = st.selectbox("Type", list(book.types), key="compose.type")
        length = st.selectbox("Length", list(LENGTHS), LENGTHS.index("medium-length"), key="compose.length")
        extras = st.multiselect("Extras", list(book.extras), key="compose.extras", format_func=str.capitalize)
        prompt = book.compose(kind, length, extras)
        st.code(prompt, language=None, wrap_lines=True)
        st.button("Use this prompt", type="primary", key="compose.use", on_click=_use, args=(workspace, draft, prompt))


def _use(workspace: Workspace, draft: Mapping[str, Any], prompt: str) -> None:
    drafts.save(workspace, "caption", form.merge(draft, {"caption": {"prompt": prompt}}))
    form.forget("caption")
