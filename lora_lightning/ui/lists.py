"""Runs as lists: the devices with their queue, what has ended, and the trash."""

from collections.abc import Sequence

import streamlit as st

from lora_lightning.runs import trash
from lora_lightning.runs.folder import RunFolder, State, Status
from lora_lightning.runs.gpu import devices
from lora_lightning.ui import actions, cards, gallery, monitor
from lora_lightning.ui.devices import named
from lora_lightning.workspace import Workspace

PER_PAGE = 20
GROUPS: dict[str, tuple[State, ...]] = {
    "All": ("stopped", "interrupted", "failed", "completed"),
    "Completed": ("completed",),
    "Failed": ("failed", "interrupted"),
    "Stopped": ("stopped",),
}


def at_work(workspace: Workspace, working: Sequence[Status]) -> None:
    """Each device with the run on it and those that wait for it alone, then the line for any device in its order."""
    known = named()
    line = sorted((status for status in working if status.state == "queued"), key=lambda status: status.queue_order)
    on_device = {status.device.split(", ")[0]: status for status in working if status.state != "queued"}
    for device in devices(workspace):
        name = known.get(device.name, "this machine's processor")
        holder = device.holder()
        told = f"used by {cards.escape(holder)}" if holder else "free"
        st.markdown(f":small[:gray[{device.name} ({cards.escape(name)}): {told}]]")
        if device.name in on_device:
            _card(workspace, on_device.pop(device.name).name)
        own = [status for status in line if status.wanted == device.name]
        _line(workspace, own, f"Waiting for {device.name}")
        line = [status for status in line if status not in own]
    for status in on_device.values():  # those that need no device, such as publishing
        _card(workspace, status.name)
    _line(workspace, line, "Waiting")


def ended(workspace: Workspace, found: Sequence[Status]) -> None:
    """What has ended, the newest first, narrowed down by how it ended and by name."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        group = st.segmented_control("Ended", list(GROUPS), default="All", required=True, key="runs.group")
        sought = st.text_input("Name", key="runs.name", placeholder="Find a run", icon=":material/search:", width=260)
    shown = [status for status in found if status.state in GROUPS[group] and sought.lower() in status.name.lower()]
    if not shown:
        st.markdown(":gray[No run is so.]")
    page = gallery.pager(len(shown), "runs", PER_PAGE)
    for status in shown[(page - 1) * PER_PAGE : page * PER_PAGE]:
        _card(workspace, status.name)


def deleted(workspace: Workspace) -> None:
    """The trash: put back, or make room."""
    found = trash.listed(workspace)
    if not found:
        st.info("Deleted runs lie here until you empty it.", title="The trash is empty", icon=":material/delete:")
        return
    for each in found:
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{cards.escape(each.name)}** :gray[deleted {cards.ago(each.when)}]", width="stretch")
            back = (lambda each=each: trash.restore(workspace, each), f"{each.name} is back")
            key = f"restore.{each.path.name}"
            st.button("Restore", key=key, icon=":material/restore:", on_click=actions.attempt, args=back)
    with st.popover("Empty the trash", icon=":material/delete_forever:"):
        st.markdown(f"Destroys {cards.counted(len(found), 'run')} with checkpoints and samples. There is no way back.")
        away = (lambda: trash.empty(workspace), "The trash is empty")
        st.button("Destroy them", key="trash.empty", type="primary", on_click=actions.attempt, args=away)


def _line(workspace: Workspace, line: Sequence[Status], title: str) -> None:
    if line:
        st.subheader(f"{title} ({len(line)})", anchor=False)
    for status in line:
        _card(workspace, status.name)


def _card(workspace: Workspace, name: str) -> None:
    monitor.card(workspace, RunFolder(workspace.run(name)), key=f"runs.{name}")
