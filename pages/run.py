"""Run: one run from its first phase to its result, live."""

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from lora_lightning.runs.folder import RunFolder
from lora_lightning.ui import actions, cards, charts, checkpoints, contents, gallery, monitor, results, samples
from lora_lightning.workspace import Workspace

TABS = ["Overview", "Samples", "Curves", "Checkpoints", "Log", "Recipe", "Files"]

workspace = Workspace.find()
name = st.query_params.get("id", "")
if not name:
    cards.head("Run", "One run, live.")
    cards.empty(
        "No run is chosen",
        "The address names none; choose one from the list.",
        to="runs",
        label="Show the runs",
        icon=":material/format_list_bulleted:",
    )
    st.stop()

st.page_link(cards.page("runs"), label="All runs", icon=":material/arrow_back:")
actions.undo(workspace)
run = RunFolder.open(workspace, name)
status = run.status()
st.title(name, anchor=False)

made = run.result().get("made", {})
lora = made.get("lora")
if status.state == "completed" and lora:
    size = cards.size(Path(lora).stat().st_size)
    st.success(f"`{cards.place(Path(lora))}` ({size})", title="The LoRA is finished", icon=":material/check_circle:")
    with st.container(horizontal=True, vertical_alignment="center"):
        cards.next_step("Generate pictures", to="generate", icon=":material/image:", query={"lora": Path(lora).stem})
        st.page_link(cards.page("evaluate"), label="Evaluate it", query_params={"lora": Path(lora).stem})
        st.page_link(cards.page("publish"), label="Publish it", query_params={"lora": Path(lora).stem})
elif status.state == "completed":
    results.next_step(run, status.verb)


def overview() -> None:
    """What came out of it first, then how it went."""
    if status.state == "completed" and "sheet" in made:
        gallery.picture(gallery.of_file(workspace, Path(made["sheet"]), "the base and the LoRA from the same seeds"))
    monitor.overview(workspace, run)


parts: dict[str, Callable[[], None]] = {
    "Overview": overview,
    "Samples": lambda: monitor.watch(run, lambda _: samples.show(workspace, run)),
    "Curves": lambda: monitor.watch(run, lambda _: charts.every(run)),
    "Checkpoints": lambda: monitor.watch(run, lambda _: checkpoints.show(workspace, run)),
    "Log": lambda: contents.log(run),
    "Recipe": lambda: contents.recipe(run),
    "Files": lambda: contents.files(workspace, run),
}
for title, tab in zip(TABS, cards.tabs(TABS), strict=True):
    if tab.open:
        with tab:
            parts[title]()
