"""TensorBoard: every curve of every run, or of one, embedded from this very server."""

import re
from importlib.util import find_spec
from urllib.parse import quote

import streamlit as st

from lora_lightning.ui import cards
from lora_lightning.ui.board import PREFIX
from lora_lightning.workspace import Workspace

HEIGHT = 860
ALL = "All runs"

workspace = Workspace.find()
cards.head(
    "TensorBoard", "Loss, learning rate and everything else that runs record, read from their folders as they grow."
)
if find_spec("tensorboard") is None:
    st.warning("`pip install tensorboard`, then start the dashboard again.", title="TensorBoard is not installed here")
    st.stop()

recorded = sorted({events.parents[1].name for events in workspace.runs.glob("*/tb/events.*")})
if not recorded:
    cards.empty(
        "No run has recorded anything yet",
        "Curves appear with the first training steps.",
        to="train",
        label="Train a LoRA",
        icon=":material/bolt:",
    )
    st.stop()

with st.container(horizontal=True, vertical_alignment="bottom"):
    run = cards.choose("Show", [ALL, *recorded], query="run")
    dark = "true" if st.context.theme.type == "dark" else "false"
    only = "" if run == ALL else f"&runFilter={quote(f'^{re.escape(run)}/')}"
    address = f"{PREFIX}/?darkMode={dark}{only}#timeseries"
    st.link_button("Open in a new tab", address, icon=":material/open_in_new:")
st.iframe(address, height=HEIGHT, alt="TensorBoard")
