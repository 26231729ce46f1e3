"""The captions in view: a page of cards, or one picture after the other with the keyboard."""

import streamlit as st

from lora_lightning.datasets.store import HUMAN, IMPORT, Dataset, Picture
from lora_lightning.ui import box, captioner, cards, gallery, review
from lora_lightning.ui.filters import View
from lora_lightning.workspace import Workspace

PER_PAGE = 12
LAYOUTS = ("Cards", "One by one")


def draw(workspace: Workspace, dataset: Dataset, view: View) -> None:
    """The captions in view, in the layout that was chosen, below what can be done with all of them."""
    with st.container(horizontal=True, vertical_alignment="center"):
        layout = st.segmented_control(
            "Layout",
            LAYOUTS,
            default="Cards",
            required=True,
            key="layout",
            bind="query-params",
            label_visibility="collapsed",
        )
        machine = [each for each in view.pictures if each.caption and each.author not in (HUMAN, IMPORT)]
        captioner.reroll_button(workspace, dataset, machine, key="captions.reroll")
        _told(view)
    if layout == "Cards":
        _cards(workspace, dataset, view)
    else:
        review.draw(workspace, dataset, view)


def _told(view: View) -> None:
    guess = ""
    if any(meter.estimated for meter in view.meters.both):
        guess = " Token counts are estimates: the model's tokenizer is not on this machine."
    shown = cards.counted(len(view.pictures), "picture")
    st.markdown(f":gray[{shown}. A caption is saved when you leave its box.{guess}]", width="stretch")


def _cards(workspace: Workspace, dataset: Dataset, view: View) -> None:
    page = gallery.pager(len(view.pictures), "captions", PER_PAGE)
    for picture in view.pictures[(page - 1) * PER_PAGE : page * PER_PAGE]:
        with st.container(border=True):
            _card(workspace, dataset, picture, view)


def _card(workspace: Workspace, dataset: Dataset, picture: Picture, view: View) -> None:
    left, right = st.columns([1, 3])
    with left:
        gallery.picture(gallery.of_picture(workspace, dataset, picture))
    with right:
        box.draw(dataset, picture, view)
