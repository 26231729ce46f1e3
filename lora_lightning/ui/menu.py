"""The frame that all pages share, and the menu: sections in the order of the work."""

from pathlib import Path

import streamlit as st

from lora_lightning.ui import cards

STATIC = Path(__file__).parent / "static"

ACCENT = {"light": "#4a2fd6", "dark": "#ab9dff"}
"""The colour of what is chosen, as text."""

SECTIONS = {
    "": [("home", "Home", ":material/home:")],
    "Prepare": [
        ("datasets", "Datasets", ":material/photo_library:"),
        ("captions", "Captions", ":material/edit_note:"),
    ],
    "Train": [
        ("train", "Train", ":material/bolt:"),
        ("runs", "Runs", ":material/format_list_bulleted:"),
        ("run", "Run", ":material/monitoring:"),
        ("tensorboard", "TensorBoard", ":material/show_chart:"),
    ],
    "Use": [
        ("generate", "Generate", ":material/image:"),
        ("evaluate", "Evaluate", ":material/query_stats:"),
        ("publish", "Publish", ":material/publish:"),
    ],
    "Machine": [("settings", "Settings", ":material/settings:")],
}
"""Section: its pages as file name, title and icon."""

HIDDEN = ("run",)
"""Pages that are reached through a link that says what they show, not from the menu."""


def frame() -> None:
    """Set what all pages have in common."""
    st.set_page_config(page_title="LoRA Lightning", page_icon=str(STATIC / "mark.png"), layout="wide")
    mode = "dark" if st.context.theme.type == "dark" else "light"
    st.logo(str(STATIC / f"logo-{mode}.svg"), size="large", icon_image=str(STATIC / "mark.svg"))
    st.html(STATIC / "style.css")
    st.html(f"<style>:root {{ --ll-accent: {ACCENT[mode]}; }}</style>")


def pages() -> dict[str, list[st.Page]]:
    """The pages by section."""
    return {
        section: [
            st.Page(
                cards.page(name),
                title=title,
                icon=icon,
                url_path=name,
                default=name == "home",
                visibility="hidden" if name in HIDDEN else "visible",
            )
            for name, title, icon in entries
        ]
        for section, entries in SECTIONS.items()
    }
