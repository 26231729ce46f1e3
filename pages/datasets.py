"""Datasets: bring pictures in, see what came, look through them, take them out again."""

from functools import partial

import streamlit as st

from lora_lightning.datasets.snapshot import take
from lora_lightning.datasets.store import Dataset
from lora_lightning.ui import cards, crops, exports, gallery, imports, triage, variations
from lora_lightning.workspace import Workspace

workspace = Workspace.find()
cards.head("Datasets", "Pictures with their captions. The originals are kept as they are and never altered.")

names = workspace.dataset_names()
if not names:
    st.info(
        "A ZIP, pictures, or a folder on this machine, with captions in .txt, metadata.jsonl or captions.json.",
        title="There is no dataset yet",
        icon=":material/add_photo_alternate:",
    )
with st.expander("Import pictures", expanded=not names, icon=":material/add_photo_alternate:"):
    imports.importer(workspace)
imports.report()
if not (names := workspace.dataset_names()):
    st.stop()

chosen = cards.choose("Dataset", names, query="dataset")
dataset = Dataset.open(workspace.dataset(chosen))
snapshot = take(dataset)
pictures = snapshot.pictures
bare = [picture for picture in pictures if not picture.caption]

with st.container(horizontal=True, vertical_alignment="center"):
    if bare:
        text = f"Caption {cards.counted(len(bare), 'picture')}"
        cards.next_step(text, to="captions", icon=":material/edit_note:", query={"dataset": chosen})
    else:
        cards.next_step("Train on this dataset", to="train", icon=":material/bolt:", query={"dataset": chosen})
        st.page_link(cards.page("captions"), label="Edit captions", query_params={"dataset": chosen})

imports.statistics(snapshot)
titles = ["Pictures", "Check pictures", "Crops", "Captions", "Variations", "Export"]
browse, checked, cut, table, varied, export = st.tabs(titles, key="tab", on_change="rerun", bind="query-params")
if browse.open:
    with browse:
        gallery.show(pictures, partial(gallery.of_picture, workspace, dataset), f"browse.{chosen}")
if checked.open:
    with checked:
        triage.check(workspace, snapshot)
if cut.open:
    with cut:
        crops.draw(workspace, snapshot)
if table.open:
    with table:
        imports.matches(pictures)
if varied.open:
    with varied:
        variations.draw(workspace, snapshot)
if export.open:
    with export:
        exports.draw(workspace, dataset)
