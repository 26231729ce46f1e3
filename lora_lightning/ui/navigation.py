"""The script that Streamlit runs first, whatever page is asked for."""

import streamlit as st

from lora_lightning.ui import cards, menu, window
from lora_lightning.workspace import Workspace

menu.frame()
window.mount(Workspace.find())
page = st.navigation(menu.pages(), expanded=True)
with cards.reported():
    page.run()
