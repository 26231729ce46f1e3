"""What a person can do to a run: stop, force, resume, clone, put first, delete."""

from collections.abc import Callable

import streamlit as st

from lora_lightning import recipe
from lora_lightning.errors import LoraLightningError
from lora_lightning.runs import launch, queue
from lora_lightning.runs.folder import RESUMABLE, RunFolder, Status
from lora_lightning.ui import cards, drafts, form
from lora_lightning.workspace import Workspace


def buttons(workspace: Workspace, run: RunFolder, status: Status, *, key: str) -> None:
    """The actions that make sense in the run's state, in a row."""
    with st.container(horizontal=True, key=f"{key}.actions"):
        if status.live:
            st.button(
                "Stop",
                key=f"{key}.stop",
                icon=":material/stop:",
                disabled=status.state == "stopping",
                help="Finishes this step, saves a checkpoint, and ends. It can be resumed.",
                on_click=_try,
                args=(lambda: launch.stop(run), ""),
            )
            _force(run, status, key)
        if status.state == "queued" and status.queue_order:
            first = (lambda: queue.move_to_front(workspace, run.name), f"{run.name} goes next")
            st.button("Put first", key=f"{key}.first", icon=":material/vertical_align_top:", on_click=_try, args=first)
        if status.state in RESUMABLE:
            resume = (lambda: launch.resume(workspace, run.name), f"Resuming {run.name}")
            st.button("Resume", key=f"{key}.resume", icon=":material/resume:", on_click=_try, args=resume)
        if status.verb == "train" and st.button("Clone", key=f"{key}.clone", icon=":material/content_copy:"):
            clone(workspace, run)
        if not status.live:
            _delete(workspace, run, key)


def clone(workspace: Workspace, run: RunFolder) -> None:
    """Open the Train page with this run's recipe under a free name."""
    values = dict(recipe.read(run.recipe_path)) | {"name": launch.clone_name(workspace, run.name)}
    drafts.save(workspace, "train", values)
    form.forget("train")
    st.switch_page(cards.page("train"))


def _force(run: RunFolder, status: Status, key: str) -> None:
    with st.popover("Force stop", icon=":material/dangerous:", key=f"{key}.force", disabled=not status.started):
        st.markdown(
            f"Ends **{run.name}** at once. Everything since its last checkpoint is lost. "
            "**Stop** saves first; use this only when it does not end."
        )
        st.button(
            "Force stop now",
            key=f"{key}.force_now",
            type="primary",
            on_click=_try,
            args=(lambda: launch.force_stop(run), f"{run.name} was ended"),
        )


def _delete(workspace: Workspace, run: RunFolder, key: str) -> None:
    with st.popover("Delete", icon=":material/delete:", key=f"{key}.delete"):
        st.markdown(f"Moves the folder of **{run.name}** to the workspace's trash. A finished LoRA stays in output.")
        st.button(
            "Move to trash",
            key=f"{key}.delete_now",
            type="primary",
            on_click=_try,
            args=(lambda: launch.delete(workspace, run), f"{run.name} is in the trash"),
        )


def _try(action: Callable[[], object], done: str) -> None:
    try:
        action()
    except LoraLightningError as error:
        st.toast(f"{error.message}. {error.hint}", icon=":material/error:", duration="long")
    else:
        if done:
            st.toast(done, icon=":material/check:")
