"""Evaluate: the base and a LoRA from the same seeds, side by side and in numbers."""

import streamlit as st

from lora_lightning import recipe
from lora_lightning.runs import launch
from lora_lightning.ui import cards, drafts, form, monitor, results
from lora_lightning.workspace import Workspace

SHOWN = ["evaluate.seeds", "evaluate.steps", "evaluate.width", "evaluate.height", "evaluate.encoder"]

workspace = Workspace.find()
cards.head("Evaluate", "What the LoRA learned, and what it forgot: each picture drawn with and without it.")

names = workspace.lora_names()
if not names:
    cards.empty(
        "There is no finished LoRA yet",
        "Evaluation compares a finished LoRA with its base model.",
        to="train",
        label="Train a LoRA",
        icon=":material/bolt:",
    )
    st.stop()

left, right = st.columns([2, 3], gap="large")
with left:
    name = cards.choose("LoRA", names, query="lora")
    trained = dict(recipe.read(workspace.output / name / "recipe.yaml"))
    draft = drafts.load(workspace, "evaluate") or {"evaluate": trained.get("evaluate", {})}
    values = form.draw("evaluate", ["evaluate.prompts", "evaluate.weights"], draft)
    with st.grid("auto", min_column_width=140):
        values = form.merge(values, form.draw("evaluate", SHOWN, draft))
    drafts.save(workspace, "evaluate", values)
    if st.button("Evaluate", type="primary", icon=":material/query_stats:", width="stretch"):
        with cards.reported():
            job = recipe.parse(trained | {"evaluate": trained.get("evaluate", {}) | values["evaluate"]})
            launch.start(workspace, "evaluate", name, job.to_yaml())
            st.rerun()

with right:
    for run in monitor.active(workspace):
        if run.read_state().get("verb") == "evaluate":
            monitor.card(workspace, run, key=f"evaluate.{run.name}")
    results.evaluated(workspace, name)
    st.page_link(cards.page("publish"), label="Publish it", icon=":material/publish:", query_params={"lora": name})
