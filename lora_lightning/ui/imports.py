"""Pictures in and out: the import form and its report, a dataset's figures, matches and downloads."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from lora_lightning import plugins
from lora_lightning.datasets.importing import FileNote, ImportReport, import_sources
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.errors import InputError
from lora_lightning.ui import cards, gallery
from lora_lightning.workspace import Workspace

ACCEPTED = ("zip", "jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "txt", "json")


def importer(workspace: Workspace) -> None:
    """The form that imports uploads, or a folder or ZIP of the machine that runs the dashboard."""
    name: str = st.text_input(
        "Dataset name", key="import.name", placeholder="my-pictures", help="A new one, or one to add to."
    )
    uploads = st.file_uploader(
        "Upload a ZIP, pictures, captions",
        type=ACCEPTED,
        accept_multiple_files=True,
        key=f"import.uploads.{st.session_state.get('import.round', 0)}",
        help="Captions: NAME.txt beside NAME.jpg, or one captions.json.",
    )
    folder: str = st.text_input(
        "Or a folder or ZIP on this machine",
        key="import.folder",
        placeholder="/data/pictures",
        help="Better than an upload for very many or very large pictures.",
    )
    if st.button("Import", type="primary", icon=":material/download:", disabled=not (uploads or folder)):
        with cards.reported(), st.spinner("Reading every picture", show_time=True):
            st.session_state["import.report"] = _import(workspace, name.strip(), uploads, folder.strip())
            st.session_state["import.round"] = st.session_state.get("import.round", 0) + 1
            st.query_params["dataset"] = name.strip()
            st.rerun()


def _import(workspace: Workspace, name: str, uploads: Sequence[UploadedFile], folder: str) -> ImportReport:
    """Put uploads on the workspace's disk at once, import them, and take them away again."""
    workspace.dataset(name)  # a name that cannot be used is told before anything is copied
    workspace.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.home, prefix=".upload-") as temporary:
        sources = [_stored(upload, Path(temporary) / str(number)) for number, upload in enumerate(uploads)]
        if folder:
            sources.append(Path(folder).expanduser())
            if not sources[-1].exists():
                raise InputError(f"there is no {folder} on this machine", "Give the full path of a folder or a ZIP.")
        return import_sources(workspace, name, sources)


def _stored(upload: UploadedFile, folder: Path) -> Path:
    folder.mkdir()
    path = folder / Path(upload.name).name
    with path.open("wb") as file:
        shutil.copyfileobj(upload, file)
    return path


def report() -> None:
    """What the import just done took, changed and left out."""
    done: ImportReport | None = st.session_state.get("import.report")
    if done is None:
        return
    text = f"{cards.counted(len(done.accepted), 'picture')} with {cards.counted(done.captions, 'caption')}"
    left = f", {cards.counted(len(done.rejected), 'file')} left out" if done.rejected else ""
    st.success(text + left, title="Imported", icon=":material/check_circle:")
    if done.rejected:
        st.markdown("**Left out**")
        _notes(done.rejected)
    if done.changed:
        with st.expander(f"{cards.counted(len(done.changed), 'picture')} read differently from their bytes"):
            _notes(done.changed)


def _notes(notes: Sequence[FileNote]) -> None:
    st.dataframe([{"File": note.file, "Why": note.reason} for note in notes], hide_index=True)


def statistics(dataset: Dataset) -> None:
    """A dataset's figures in a row."""
    found = dataset.statistics()
    with st.grid("auto", min_column_width=140):
        st.metric("Pictures", f"{found.pictures:,}", border=True)
        st.metric("With caption", f"{found.captioned:,}", border=True)
        st.metric("Smallest side", f"{found.smallest_side} px", border=True)
        st.metric("Mean size", f"{found.mean_megapixels:.2f} MP", border=True)
        st.metric("On disk", cards.size(found.bytes), border=True)


def matches(workspace: Workspace, dataset: Dataset, pictures: Sequence[Picture]) -> None:
    """Which caption belongs to which picture, before anything is trained on it."""
    st.dataframe(
        [
            {
                "Picture": picture.name,
                "Caption": picture.caption,
                "Matched": "✓ yes" if picture.caption else "✗ no caption",
                "From": picture.author or "",
                "Size": f"{picture.width} x {picture.height}",
            }
            for picture in pictures
        ],
        hide_index=True,
        column_config={"Caption": st.column_config.TextColumn(width="large")},
    )


def downloads(workspace: Workspace, dataset: Dataset) -> None:
    """The three files of the original workflow: captions as text and as JSON, and the pictures in a ZIP."""
    folder = workspace.home / "exports" / dataset.name
    if st.button("Make the files", icon=":material/folder_zip:"):
        with cards.reported(), st.spinner("Writing", show_time=True):
            plugins.load("datasets/formats", "seed").export(dataset, folder)
    made = sorted(path for path in folder.glob("*") if path.is_file())
    for path in made:
        label = f"{path.name} ({cards.size(path.stat().st_size)})"
        st.markdown(f":material/download: [{label}]({gallery.url(workspace, path, save=True)})")
    if not made:
        st.markdown(f":gray[{dataset.name}_captions.txt and .json, and a ZIP with 0001.png, 0002.png and so on.]")
