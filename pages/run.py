"""Run: one run from its first phase to its result, live."""

from pathlib import Path

import streamlit as st

from lora_lightning.runs.folder import RunFolder
from lora_lightning.ui import cards, contents, monitor
from lora_lightning.workspace import Workspace

TABS = ["Overview", "Samples", "Log", "Recipe", "Files"]

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
run = RunFolder.open(workspace, name)
status = run.status()
st.title(name, anchor=False)

lora = run.result().get("made", {}).get("lora")
if status.state == "completed" and lora:
    size = cards.size(Path(lora).stat().st_size)
    st.success(f"`{lora}` ({size})", title="The LoRA is finished", icon=":material/check_circle:")
    with st.container(horizontal=True, vertical_alignment="center"):
        cards.next_step("Generate pictures", to="generate", icon=":material/image:", query={"lora": Path(lora).stem})
        st.page_link(cards.page("publish"), label="Publish it", query_params={"lora": Path(lora).stem})

overview, samples, log, recipe, files = st.tabs(TABS, key="tab_run", on_change="rerun", bind="query-params")
with overview:
    if overview.open:
        monitor.overview(workspace, run)
with samples:
    if samples.open:
        contents.samples(workspace, run)
with log:
    if log.open:
        contents.log(run)
with recipe:
    st.code(run.recipe_path.read_text(encoding="utf-8"), language="yaml")
with files:
    if files.open:
        contents.files(workspace, run)
