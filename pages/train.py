"""Train: fill in a recipe, see at once what is wrong with it, and start."""

import streamlit as st

from lora_lightning.check import check
from lora_lightning.datasets.snapshot import take
from lora_lightning.datasets.store import Dataset
from lora_lightning.recipe import inspect
from lora_lightning.runs.gpu import alone
from lora_lightning.ui import cards, devices, drafts, form, kitchen, launching, preflight
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
snapshot = take(Dataset.open(workspace.dataset(dataset))) if dataset else None
with right:
    st.subheader("Before it starts", anchor=False)
    device = devices.choose(workspace, found.recipe)
    with alone(device):
        report = check(found.recipe, workspace)
    preflight.figures(report.estimates)
    launching.panel(workspace, found, report, values, device)
    with st.expander("Noise levels", icon=":material/blur_on:", key="train.noise", on_change="rerun") as noise:
        if noise.open:
            preflight.noise(found.recipe)
    if snapshot and snapshot.pictures:
        told = f"What training sees of {cards.counted(len(snapshot.pictures), 'picture')}"
        with st.expander(told, icon=":material/crop:", key="train.crops", on_change="rerun") as crops:
            if crops.open:
                preflight.crops(found.recipe, snapshot.dataset, snapshot.pictures)
    launching.command(workspace, device)
