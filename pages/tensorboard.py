"""TensorBoard: every curve of every run, embedded from this very server."""

import streamlit as st

from lora_lightning.ui import cards
from lora_lightning.ui.board import PREFIX
from lora_lightning.workspace import Workspace

HEIGHT = 860

workspace = Workspace.find()
cards.head(
    "TensorBoard", "Loss, learning rate and everything else that runs record, read from their folders as they grow."
)

if not any(workspace.runs.glob("*/tb/**/events.*")):
    cards.empty(
        "No run has recorded anything yet",
        "Curves appear with the first training steps.",
        to="train",
        label="Train a LoRA",
        icon=":material/bolt:",
    )
    st.stop()

dark = "true" if st.context.theme.type == "dark" else "false"
address = f"{PREFIX}/?darkMode={dark}#timeseries"
st.link_button("Open in a new tab", address, icon=":material/open_in_new:")
st.iframe(address, height=HEIGHT, alt="TensorBoard")
