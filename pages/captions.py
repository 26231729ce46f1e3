"""Captions: let a captioner describe the pictures, then put its words right."""

import streamlit as st

from lora_lightning.datasets.snapshot import take
from lora_lightning.datasets.store import Dataset
from lora_lightning.ui import bulk, captioner, cards, editor, filters
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
snapshot = take(dataset)
busy = captioner.panel(workspace, snapshot)
if all(picture.caption for picture in snapshot.pictures) and not busy:
    cards.next_step("Train on this dataset", to="train", icon=":material/bolt:", query={"dataset": chosen})

view = filters.draw(workspace, snapshot)
bulk.panel(dataset, view)
editor.draw(workspace, dataset, view)
