"""Runs: everything that works, waits, or has ended, whoever started it."""

import streamlit as st

from lora_lightning.runs.folder import runs
from lora_lightning.ui import cards, gallery, monitor
from lora_lightning.workspace import Workspace

PER_PAGE = 20

workspace = Workspace.find()
cards.head(
    "Runs", "Each lives in a folder of the workspace and works on without this page. One at a time uses a device."
)

found = runs(workspace)
if not found:
    cards.empty(
        "Nothing has run yet",
        "Training, captioning, generating and publishing appear here, from this dashboard or the command line.",
        to="train",
        label="Train a LoRA",
        icon=":material/bolt:",
    )
    st.stop()

working = {run.name for run in monitor.active(workspace)}
if working:
    st.header("Working and waiting", anchor=False)
    line = sorted((run for run in found if run.name in working), key=lambda run: run.status().queue_order)
    for run in line:
        monitor.card(workspace, run, key=f"runs.{run.name}")
ended = [run for run in found if run.name not in working]
if ended:
    st.header("Ended", anchor=False)
    page = gallery.pager(len(ended), "runs", PER_PAGE)
    for run in ended[(page - 1) * PER_PAGE : page * PER_PAGE]:
        monitor.card(workspace, run, key=f"runs.{run.name}")
