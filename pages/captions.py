"""Captions: let a captioner describe the pictures, then put its words right."""

import streamlit as st

from lora_lightning import recipe
from lora_lightning.datasets.store import Dataset
from lora_lightning.runs import launch
from lora_lightning.runs.folder import runs
from lora_lightning.ui import bulk, cards, drafts, editor, filters, form, monitor
from lora_lightning.workspace import Workspace

workspace = Workspace.find()
cards.head("Captions", "What each picture shows, in words. What you type is never overwritten by a captioner.")

names = workspace.dataset_names()
if not names:
    cards.empty(
        "There are no pictures to describe",
        "Import some first.",
        to="datasets",
        label="Import pictures",
        icon=":material/add_photo_alternate:",
    )
    st.stop()

chosen = cards.choose("Dataset", names, query="dataset")
dataset = Dataset.open(workspace.dataset(chosen))
pictures = dataset.pictures()
bare = [each for each in pictures if not each.caption]
jobs = [run for run in runs(workspace) if run.name.startswith(f"{chosen}.caption")]
busy = [run for run in jobs if run.status().live]

with st.expander("Captioner", expanded=bool(bare) and not busy, icon=":material/smart_toy:"):
    draft, fields = drafts.load(workspace, "caption"), form.paths("caption")
    values = form.draw("caption", fields[:2], draft)
    with st.grid("auto", min_column_width=170, vertical_alignment="bottom"):
        values = form.merge(values, form.draw("caption", fields[2:], draft))
    drafts.save(workspace, "caption", {"name": chosen, "dataset": {"name": chosen}} | values)
    again = values["caption"]["replace"]
    todo = [each for each in pictures if not each.caption or (again and each.author not in ("human", "import"))]
    label = f"Caption {cards.counted(len(todo), 'picture')}"
    if st.button(label, type="primary", icon=":material/play_arrow:", disabled=bool(busy) or not todo):
        with cards.reported():
            job = recipe.parse({"name": chosen, "dataset": {"name": chosen}} | values)
            launch.start(workspace, "caption", chosen, job.to_yaml())
            st.rerun()
    if not todo:
        st.markdown(":gray[Every picture has a caption.]")

shown = busy or [run for run in jobs[:1] if run.status().state != "completed"]
for run in shown:
    monitor.card(workspace, run, key=f"captions.{run.name}")
if not bare and not busy:
    cards.next_step("Train on this dataset", to="train", icon=":material/bolt:", query={"dataset": chosen})

view = filters.draw(workspace, pictures)
bulk.panel(dataset, view)
editor.cards_of(workspace, dataset, view)
