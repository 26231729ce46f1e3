"""What a person can do to a run: stop, force, save, sample, resume, go on, clone, move in line, delete."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import streamlit as st

from lora_lightning import recipe
from lora_lightning.errors import LoraLightningError
from lora_lightning.runs import launch, queue, trash
from lora_lightning.runs.folder import RESUMABLE, RunFolder, Status
from lora_lightning.ui import cards, drafts, form
from lora_lightning.workspace import Workspace

MOST_STEPS = 1_000_000
"""The recipe's own limit."""

ASKED: tuple[tuple[Literal["SAVE", "SAMPLE"], str, str, str], ...] = (
    ("SAVE", "Save now", "Saving", "save"),
    ("SAMPLE", "Sample now", "Sampling", "image"),
)
"""What can be asked of a training: the request, its button, what the button says meanwhile, its icon."""

UNDO = "deleted run"
"""Where a session remembers what was deleted last."""


def buttons(workspace: Workspace, run: RunFolder, status: Status, *, key: str) -> None:
    """The actions that make sense in the run's state, in a row."""
    with st.container(horizontal=True, key=f"{key}.actions"):
        if status.live:
            _end(run, status, key)
        if status.state == "queued" and status.queue_order:
            _line(workspace, run, key)
        if status.verb == "train" and status.state == "running" and status.started:
            _ask(run, key)
        if status.state in RESUMABLE:
            resume = (lambda: launch.resume(workspace, run.name), f"Resuming {run.name}")
            st.button("Resume", key=f"{key}.resume", icon=":material/resume:", on_click=attempt, args=resume)
        if status.verb == "train":
            if not status.live and 0 < (step := last_checkpoint(run)) < MOST_STEPS:
                _further(workspace, run, step, key)
            if st.button("Clone", key=f"{key}.clone", icon=":material/content_copy:", help="A new run like this one."):
                clone(workspace, run)
        if not status.live:
            _delete(workspace, run, key)


def clone(workspace: Workspace, run: RunFolder, changes: Mapping[str, Any] | None = None) -> None:
    """Open the Train page with this run's recipe under a free name, changed as asked."""
    values = dict(recipe.read(run.recipe_path)) | {"name": launch.clone_name(workspace, run.name)}
    drafts.save(workspace, "train", form.merge(values, changes or {}))
    form.forget("train")
    st.switch_page(cards.page("train"))


def remedy(workspace: Workspace, run: RunFolder, status: Status) -> None:
    """A button that does what the hint of a failure says, where a button can."""
    if status.verb != "train":
        return
    if status.error == "OutOfMemory":
        with st.container(horizontal=True):
            changes = {"model": {"low_vram": True}, "train": {"batch_size": 1, "gradient_checkpointing": True}}
            if st.button("Clone with less memory", key="remedy", icon=":material/memory:", type="primary"):
                clone(workspace, run, changes)
    elif status.error == "Diverged":
        half = form.stored(recipe.read(run.recipe_path), "train.learning_rate") / 2
        if st.button(f"Clone with learning rate {half:g}", key="remedy", icon=":material/speed:", type="primary"):
            clone(workspace, run, {"train": {"learning_rate": half}})
    elif status.error == "DiskFull":
        st.page_link(cards.page("settings"), label="See what takes the space", icon=":material/hard_drive:")


def undo(workspace: Workspace) -> None:
    """After a deletion: the way back."""
    deleted: trash.Deleted | None = st.session_state.get(UNDO)
    if deleted is None or not deleted.path.is_dir():
        return
    with st.container(horizontal=True, vertical_alignment="center", border=True, key="undo"):
        st.markdown(f"**{cards.escape(deleted.name)}** is in the trash.", width="stretch")
        back = (lambda: trash.restore(workspace, deleted), f"{deleted.name} is back")
        st.button("Undo", key="undo_now", icon=":material/undo:", on_click=attempt, args=back)


def attempt(action: Callable[[], object], done: str) -> None:
    """Do it, and say so in passing, or say why not."""
    try:
        action()
    except LoraLightningError as error:
        st.toast(f"{error.message}. {error.hint}", icon=":material/error:", duration="long")
    else:
        if done:
            st.toast(done, icon=":material/check:")


def _end(run: RunFolder, status: Status, key: str) -> None:
    st.button(
        "Stop",
        key=f"{key}.stop",
        icon=":material/stop:",
        disabled=status.state == "stopping",
        help="Finishes this step, saves a checkpoint, and ends. It can be resumed.",
        on_click=attempt,
        args=(lambda: launch.stop(run), ""),
    )
    with st.popover("Force stop", icon=":material/dangerous:", key=f"{key}.force", disabled=not status.started):
        st.markdown(
            f"Ends **{run.name}** at once. Everything since its last checkpoint is lost{_since(run, status)}. "
            "**Stop** saves first; use this only when it does not end."
        )
        st.button(
            "Force stop now",
            key=f"{key}.force_now",
            type="primary",
            on_click=attempt,
            args=(lambda: launch.force_stop(run), f"{run.name} was ended"),
        )


def last_checkpoint(run: RunFolder) -> int:
    """The step of the newest one, or 0."""
    return max((int(path.stem) for path in run.checkpoints.glob("*.ckpt") if path.stem.isdecimal()), default=0)


def _since(run: RunFolder, status: Status) -> str:
    """How much that would be, in steps."""
    saved = last_checkpoint(run)
    if status.verb != "train" or status.phase != "training" or status.done <= saved:
        return ""
    return f": {cards.counted(status.done - saved, 'step')}"


def _line(workspace: Workspace, run: RunFolder, key: str) -> None:
    waiting = [status.name for status in queue.rivals(queue.waiting(workspace), run.name)]
    place = waiting.index(run.name) if run.name in waiting else 0
    for label, icon, by, off in (("Up", "arrow_upward", -1, place == 0), ("Down", "arrow_downward", 1, False)):
        st.button(
            label,
            key=f"{key}.{label.lower()}",
            icon=f":material/{icon}:",
            disabled=off or place + by >= len(waiting),
            on_click=attempt,
            args=(lambda by=by: queue.move(workspace, run.name, by), ""),
        )
    first = (lambda: queue.move_to_front(workspace, run.name), f"{run.name} goes next")
    st.button(
        "Put first",
        key=f"{key}.first",
        icon=":material/vertical_align_top:",
        disabled=place == 0,
        on_click=attempt,
        args=first,
    )


def _ask(run: RunFolder, key: str) -> None:
    """Save now and Sample now: done between two steps; until then the button says that it was heard."""
    for control, label, waits, icon in ASKED:
        asked = run.requested(control)
        st.button(
            f"{waits} after this step" if asked else label,
            key=f"{key}.{control.lower()}",
            icon=f":material/{icon}:",
            disabled=asked,
            on_click=attempt,
            args=(partial(run.request, control), ""),
        )


def go_on(workspace: Workspace, run: RunFolder, step: int, total: int, name: str) -> None:
    """Start a new run from a checkpoint of this one, and show it."""
    with cards.reported():
        changes = {"name": name, "train": {"steps": total}}
        changed = recipe.parse(form.merge(recipe.read(run.recipe_path), changes))
        begun = launch.go_on(workspace, run, name, changed.to_yaml(), step)
        st.switch_page(cards.page("run"), query_params={"id": begun.name})


def _further(workspace: Workspace, run: RunFolder, step: int, key: str) -> None:
    steps = int(form.stored(recipe.read(run.recipe_path), "train.steps") or 0)
    with st.popover("Continue", icon=":material/fast_forward:", key=f"{key}.further"):
        st.markdown(
            f"**To more steps.** A new run goes on from step {step:,}: adapter, optimizer and place in the data."
        )
        usual = min(max(step + 1, steps * 3 // 2), MOST_STEPS)
        total = st.number_input("To step", step + 1, MOST_STEPS, usual, key=f"{key}.to")
        if st.button(f"Continue to {total:,} steps", key=f"{key}.further_now", type="primary"):
            go_on(workspace, run, step, int(total), launch.clone_name(workspace, run.name))
        if workspace.lora(run.name).is_file():
            st.markdown(
                "**As something else.** A new run begins with these weights at step 0: other pictures or rates."
            )
            if st.button("New run from these weights", key=f"{key}.weights", icon=":material/start:"):
                clone(workspace, run, {"lora": {"init_from": run.name}})
        st.markdown(f":gray[**{run.name}** stays as it is.]")


def _delete(workspace: Workspace, run: RunFolder, key: str) -> None:
    def delete() -> None:
        st.session_state[UNDO] = trash.delete(workspace, run)

    with st.popover("Delete", icon=":material/delete:", key=f"{key}.delete"):
        st.markdown(f"Moves the folder of **{run.name}** to the workspace's trash. A finished LoRA stays in output.")
        st.button(
            "Move to trash",
            key=f"{key}.delete_now",
            type="primary",
            on_click=attempt,
            args=(delete, f"{run.name} is in the trash"),
        )
