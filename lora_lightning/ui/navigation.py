"""The script that Streamlit runs first, whatever page is asked for."""

import streamlit as st

from lora_lightning.ui import cards, menu

menu.frame()
page = st.navigation(menu.pages(), expanded=True)
with cards.reported():
    page.run()
