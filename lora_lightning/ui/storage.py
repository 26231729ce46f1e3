"""What takes the space in a workspace, and what may go."""

import shutil
from pathlib import Path

import streamlit as st

from lora_lightning.runs.folder import runs
from lora_lightning.ui import cards
from lora_lightning.workspace import Workspace

PARTS = {
    "datasets": "pictures and captions",
    "runs": "checkpoints, samples, logs",
    "output": "finished LoRAs",
    "cache": "made again when it is needed",
    "trash": "deleted runs",
}


def show(workspace: Workspace) -> None:
    """The disk; on a click the parts of the workspace, and the cache to clear."""
    home = next(folder for folder in (workspace.home, *workspace.home.parents) if folder.exists())
    disk = shutil.disk_usage(home)
    st.progress(1 - disk.free / disk.total, text=f"{cards.size(disk.free)} of {cards.size(disk.total)} free")
    with st.container(horizontal=True):
        measure = st.button("What takes the space", key="storage.measure", icon=":material/hard_drive:")
        with st.popover("Clear the cache", icon=":material/cleaning_services:"):
            _clear(workspace)
    if measure:
        sizes = {name: weigh(workspace.home / name) for name in PARTS}
        rows = [{"Part": name, "Holds": PARTS[name], "Size": cards.size(sizes[name])} for name in PARTS]
        st.dataframe(rows, hide_index=True)


def _clear(workspace: Workspace) -> None:
    st.markdown("Latents, text embeddings and small pictures are made again when they are needed.")
    busy = any(run.status().live for run in runs(workspace))
    off = busy or not workspace.cache.is_dir()
    if st.button("Clear it now", key="storage.clear", type="primary", disabled=off):
        shutil.rmtree(workspace.cache)
        st.rerun()
    if busy:
        st.markdown(":gray[Not while a run works.]")


def weigh(folder: Path) -> int:
    """All bytes in a folder, whatever goes away while it is counted."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total
