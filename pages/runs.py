"""Runs: everything that works, waits, or has ended, whoever started it; compared, and brought back from the trash."""

import streamlit as st

from lora_lightning.runs.folder import RunFolder, runs
from lora_lightning.ui import actions, cards, compare, lists
from lora_lightning.workspace import Workspace

TABS = ["Runs", "Compare", "Trash"]

workspace = Workspace.find()
cards.head(
    "Runs", "Each lives in a folder of the workspace and works on without this page. One at a time uses a device."
)
actions.undo(workspace)

found = [run.status() for run in runs(workspace)]
drawn = cards.tabs(TABS)
if drawn[0].open:
    with drawn[0]:
        working = [status for status in found if status.live]
        if working:
            lists.at_work(workspace, working)
        if len(working) < len(found):
            lists.ended(workspace, [status for status in found if not status.live])
        if not found:
            cards.empty(
                "Nothing has run yet",
                "Training, captioning, generating and publishing appear here, started here or on the command line.",
                to="train",
                label="Train a LoRA",
                icon=":material/bolt:",
            )
if drawn[1].open:
    with drawn[1]:
        trained = {status.name: RunFolder(workspace.run(status.name)) for status in found if status.verb == "train"}
        if len(trained) > 1:
            compare.show(workspace, trained)
        else:
            st.info("Two trainings make a comparison.", title="Not enough to compare", icon=":material/compare_arrows:")
if drawn[2].open:
    with drawn[2]:
        lists.deleted(workspace)
