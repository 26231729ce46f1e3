"""The dashboard: `streamlit run app.py`. One server and one port carry the pages, the pictures and TensorBoard."""

from pathlib import Path

import streamlit as st

from lora_lightning.ui.routes import routes
from lora_lightning.workspace import Workspace

NAVIGATION = Path(__file__).parent / "lora_lightning" / "ui" / "navigation.py"

app = st.App(NAVIGATION, routes=routes(Workspace.find()))
