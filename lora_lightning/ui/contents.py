"""What lies in a run's folder: its log, its recipe, its files."""

from pathlib import Path

import streamlit as st

from lora_lightning.runs.folder import RunFolder, Status
from lora_lightning.ui import cards, gallery, monitor
from lora_lightning.ui.routes import SERVED
from lora_lightning.workspace import Workspace


def log(run: RunFolder) -> None:
    """The end of the run's log."""

    def draw(status: Status) -> None:
        with st.container(height=480, autoscroll=True):
            st.code(run.log_tail() or "Nothing has been printed yet.", language=None, wrap_lines=True)

    monitor.watch(run, draw)


def recipe(run: RunFolder) -> None:
    """The run's recipe, complete, to read, copy and save."""
    text = run.recipe_path.read_text(encoding="utf-8")
    st.download_button("Save as a file", text, f"{run.name}.yaml", "application/yaml", icon=":material/download:")
    st.code(text, language="yaml")


def files(workspace: Workspace, run: RunFolder) -> None:
    """What the run made and what lies in its folder."""
    made = run.result().get("made", {}).values()
    paths = [Path(path) for value in made for path in ([value] if isinstance(value, str) else value)]
    shown = [path for path in paths if path.is_file() and path.is_relative_to(workspace.home)]
    inside = [path for path in sorted(run.path.rglob("*")) if path.is_file() and path.suffix != ".lock"]
    st.dataframe(
        [
            {
                "File": str(path.relative_to(workspace.home)),
                "Size": cards.size(path.stat().st_size),
                "Open": gallery.url(workspace, path) if path.suffix.lower() in SERVED else "",
            }
            for path in dict.fromkeys([*shown, *inside])
        ],
        hide_index=True,
        column_config={"Open": st.column_config.LinkColumn(display_text="open"), "File": {"width": "large"}},
    )
