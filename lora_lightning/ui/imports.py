"""Pictures on their way in: the import form and its report, a dataset's figures, and which caption is whose."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from lora_lightning.datasets.importing import FileNote, ImportReport, import_sources
from lora_lightning.datasets.snapshot import Snapshot
from lora_lightning.datasets.store import Picture
from lora_lightning.datasets.summary import Statistics
from lora_lightning.errors import InputError
from lora_lightning.ui import cards, uploads
from lora_lightning.workspace import Workspace

ACCEPTED = (
    *("zip", "jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "avif", "heic", "heif"),
    *("txt", "caption", "json", "jsonl", "csv"),
)
MOST_AT_ONCE = 900
"""Files that the plain uploader takes in one go; beyond 980 it fails."""

WAYS = ("ZIP or some files", "Very many files", "On this machine")


def importer(workspace: Workspace) -> None:
    """The form that imports uploads, or a folder or ZIP of the machine that runs the dashboard."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name: str = st.text_input(
            "Dataset name", key="import.name", placeholder="my-pictures", help="A new one, or one to add to."
        )
        background: str = st.color_picker(
            "Behind transparent pictures", "#ffffff", key="import.background", help="Chosen once, at the import."
        )
    way = st.segmented_control("From where", WAYS, default=WAYS[0], required=True, key="import.way")
    uploads_, folder = _sources(workspace, way)
    if st.button("Import", type="primary", icon=":material/download:", disabled=not (uploads_ or folder)):
        with cards.reported(), st.spinner("Reading every picture", show_time=True):
            done = _import(workspace, name.strip(), uploads_, folder, background)
            st.session_state["import.report"] = done
            st.session_state["import.round"] = st.session_state.get("import.round", 0) + 1
            uploads.finish(workspace)
            st.query_params["dataset"] = name.strip()
            st.rerun()


def _sources(workspace: Workspace, way: str) -> tuple[Sequence[UploadedFile], str]:
    """What was uploaded, or the path of what is on this machine already."""
    if way == WAYS[0]:
        uploaded = st.file_uploader(
            f"A ZIP, or up to {MOST_AT_ONCE} pictures and captions",
            type=ACCEPTED,
            accept_multiple_files=True,
            key=f"import.uploads.{st.session_state.get('import.round', 0)}",
            help=f"Browsers give up beyond {MOST_AT_ONCE} files here: choose {WAYS[1]!r} for more. "
            "Captions: NAME.txt beside NAME.jpg, metadata.jsonl, or one captions.json.",
        )
        return uploaded, ""
    if way == WAYS[1]:
        arrived = uploads.widget(workspace)
        return [], str(arrived.folder) if arrived else ""
    path: str = st.text_input(
        "A folder or ZIP on this machine",
        key="import.folder",
        placeholder="/data/pictures",
        help="Better than an upload for very many or very large pictures.",
    )
    return [], path.strip()


def _import(
    workspace: Workspace, name: str, uploaded: Sequence[UploadedFile], folder: str, background: str
) -> ImportReport:
    """Put uploads on the workspace's disk at once, import them, and take them away again."""
    workspace.dataset(name)  # a name that cannot be used is told before anything is copied
    workspace.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.home, prefix=".upload-") as temporary:
        sources = [_stored(upload, Path(temporary) / str(number)) for number, upload in enumerate(uploaded)]
        if folder:
            sources.append(Path(folder).expanduser())
            if not sources[-1].exists():
                raise InputError(f"there is no {folder} on this machine", "Give the full path of a folder or a ZIP.")
        return import_sources(workspace, name, sources, background)


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
    if done.accepted:
        with st.expander(f"{cards.counted(len(done.accepted), 'picture')} taken"):
            _notes(done.accepted)
    if done.changed:
        with st.expander(f"{cards.counted(len(done.changed), 'picture')} read differently from their bytes"):
            _notes(done.changed)


def _notes(notes: Sequence[FileNote]) -> None:
    st.dataframe([{"File": note.file, "Why": note.reason} for note in notes], hide_index=True)


def statistics(snapshot: Snapshot) -> None:
    """A dataset's figures in a row."""
    found = _statistics(snapshot, snapshot.token)
    with st.grid("auto", min_column_width=140):
        st.metric("Pictures", f"{found.pictures:,}", border=True)
        st.metric("With caption", f"{found.captioned:,}", border=True)
        st.metric("Smallest side", f"{found.smallest_side} px", border=True)
        st.metric("Mean size", f"{found.mean_megapixels:.2f} MP", border=True)
        st.metric("On disk", cards.size(found.bytes), border=True)


@st.cache_resource(max_entries=4, show_spinner=False)
def _statistics(_snapshot: Snapshot, token: str) -> Statistics:
    return _snapshot.dataset.statistics(_snapshot.pictures)


def matches(pictures: Sequence[Picture]) -> None:
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
