"""A dataset on its way out: for another trainer as a ZIP, or to the Hugging Face Hub."""

import shutil
from pathlib import Path

import streamlit as st

from lora_lightning.datasets import exporting
from lora_lightning.datasets.store import Dataset
from lora_lightning.publish.dataset import push
from lora_lightning.ui import cards, gallery
from lora_lightning.workspace import Workspace

DEFAULT = "seed"


def draw(workspace: Workspace, dataset: Dataset) -> None:
    """The format, its files, and the push."""
    titles = exporting.titles()
    names = sorted(titles, key=lambda name: (name != DEFAULT, titles[name].lower()))
    name = st.selectbox("For", names, format_func=titles.__getitem__, key="export.format")
    folder = workspace.home / "exports" / dataset.name
    # The three files lie side by side and are replaced; a folder for a trainer may have been worked on, and stays.
    if st.button("Make the files", icon=":material/folder_zip:", key="export.make"):
        with cards.reported(), st.spinner("Writing, then reading as the trainer does", show_time=True):
            _make(dataset, name, folder)
    for path in sorted(path for path in folder.glob("*") if path.is_file()):
        label = f"{path.name} ({cards.size(path.stat().st_size)})"
        st.markdown(f":material/download: [{label}]({gallery.url(workspace, path, save=True)})")
    with st.expander("To the Hugging Face Hub", icon=":material/cloud_upload:"):
        _push(dataset)


def _make(dataset: Dataset, name: str, folder: Path) -> None:
    if name == DEFAULT:
        done = exporting.export(dataset, name, folder)
    else:
        output = _fresh(folder, f"{dataset.name}-{name}")
        done = exporting.export(dataset, name, output)
        shutil.make_archive(str(output), "zip", output.parent, output.name)
    notes = "".join(f"\n- {cards.escape(cards.capital(note))}" for note in done.notes)
    st.success(
        f"{cards.counted(done.pictures, 'picture')}, {cards.counted(done.captions, 'caption')}.{notes}",
        title="Written, and read back without a difference",
        icon=":material/check_circle:",
    )


def _fresh(folder: Path, stem: str) -> Path:
    """A folder that does not exist yet, and whose ZIP does not either."""
    number, path = 1, folder / stem
    while path.exists() or path.with_name(f"{path.name}.zip").exists():
        number += 1
        path = folder / f"{stem}-{number}"
    return path


def _push(dataset: Dataset) -> None:
    repo: str = st.text_input("Repository", key="export.repo", placeholder=f"user/{dataset.name}")
    private = st.toggle("Private", True, key="export.private", help="Only you see it.")
    if st.button("Push", icon=":material/cloud_upload:", key="export.push", disabled=not repo.strip()):
        with cards.reported(), st.spinner("Uploading", show_time=True):
            pushed = push(dataset, repo.strip(), private=private)
            st.success(f"[{cards.escape(pushed.url)}]({pushed.url})", title="Pushed", icon=":material/check_circle:")
