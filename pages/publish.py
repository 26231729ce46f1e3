"""Publish: look over the finished LoRA and its card, then push it to the Hugging Face Hub."""

import streamlit as st

from lora_lightning import recipe
from lora_lightning.runs import launch
from lora_lightning.ui import account, cards, drafts, form, gallery, monitor, results
from lora_lightning.workspace import Workspace

workspace = Workspace.find()
cards.head(
    "Publish", "The LoRA, its card, samples and recipe, on the Hugging Face Hub. Private unless you say otherwise."
)

names = workspace.lora_names()
if not names:
    cards.empty(
        "There is no finished LoRA yet",
        "A training that has completed leaves one here.",
        to="train",
        label="Train a LoRA",
        icon=":material/bolt:",
    )
    st.stop()

name = cards.choose("LoRA", names, query="lora")
folder = workspace.output / name
left, right = st.columns([2, 3], gap="large")
with left:
    account.card()
    values = form.draw("publish", form.paths("publish"), drafts.load(workspace, "publish"))
    drafts.save(workspace, "publish", {"name": name} | values)
    public = not values["publish"]["private"]
    if public:
        st.warning("Anyone can then download it.", title="The repository will be public", icon=":material/public:")
    busy = [run for run in monitor.active(workspace) if run.read_state().get("verb") == "publish"]
    ready = bool(values["publish"]["repo"]) and not busy
    label = "Push to the Hub" + (", public" if public else "")
    if st.button(label, type="primary", icon=":material/cloud_upload:", disabled=not ready, width="stretch"):
        with cards.reported():
            job = recipe.parse({"name": name} | values)
            launch.start(workspace, "publish", name, job.to_yaml())
            st.rerun()
    for run in busy:
        monitor.card(workspace, run, key=f"publish.{run.name}")
    results.published(workspace, name)

with right:
    file = workspace.lora(name)
    link = gallery.url(workspace, file, save=True)
    st.markdown(f":material/download: [{file.name} ({cards.size(file.stat().st_size)})]({link})")
    samples = gallery.drawn(folder / "samples")
    if samples:
        gallery.show_files(workspace, samples, "publish.samples")
    card = folder / "README.md"
    if card.is_file():
        st.subheader("Model card", anchor=False)
        with st.container(border=True):
            st.markdown(results.card_text(card.read_text(encoding="utf-8")))
