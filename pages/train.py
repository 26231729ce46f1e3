"""Train: fill in a recipe, see at once what is wrong with it, and start."""

import streamlit as st

from lora_lightning.check import check
from lora_lightning.datasets.store import Dataset
from lora_lightning.recipe import inspect
from lora_lightning.ui import cards, drafts, form, kitchen, launching, preflight
from lora_lightning.workspace import Workspace

VIEWS = ["Simple", "Advanced"]

workspace = Workspace.find()
cards.head("Train", "One recipe makes one LoRA. It is kept as you type, and the command line runs the very same file.")

draft = drafts.load(workspace, "train") or drafts.preset("style")
names = workspace.dataset_names()
left, right = st.columns([3, 2], gap="large")
with left:
    view = st.segmented_control(
        "View", VIEWS, default="Simple", required=True, key="view", bind="query-params", label_visibility="collapsed"
    )
    kitchen.begin(workspace, draft)
    dataset = cards.choose("Dataset", names, query="dataset", default=form.stored(draft, "dataset.name") or "")
    values = form.merge(draft, kitchen.basic(draft))
    if view == "Advanced":
        values = form.merge(values, kitchen.advanced(values))
    form.put(values, "dataset.name", dataset)
    drafts.save(workspace, "train", values)
    kitchen.share(workspace, values)

found = inspect(values)
pictures = Dataset.open(workspace.dataset(dataset)).pictures() if dataset else []
with right:
    st.subheader("Before it starts", anchor=False)
    report = check(found.recipe, workspace)
    preflight.figures(report.estimates)
    launching.panel(workspace, found, report, values)
    with st.expander("Noise levels", icon=":material/blur_on:"):
        preflight.noise(found.recipe)
    if pictures:
        with st.expander(f"What training sees of {cards.counted(len(pictures), 'picture')}", icon=":material/crop:"):
            preflight.crops(found.recipe, Dataset.open(workspace.dataset(dataset)), pictures)
    launching.command(workspace)
