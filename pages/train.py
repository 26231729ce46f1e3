"""Train: fill in a recipe, see at once what is wrong with it, and start."""

import shlex

import streamlit as st

from lora_lightning.check import check
from lora_lightning.recipe import inspect
from lora_lightning.runs import launch
from lora_lightning.ui import cards, drafts, form
from lora_lightning.workspace import Workspace

PRESETS = {"character": "Character", "style": "Style", "product": "Product"}
BASIC = [
    "name",
    "trigger",
    "model.base",
    "model.low_vram",
    "train.steps",
    "train.learning_rate",
    "lora.rank",
    "lora.alpha",
]
SECTIONS = ["", "model", "dataset", "lora", "train", "sample"]


def use(preset: str) -> None:
    """Start over from a shipped recipe, on the same dataset and base model."""
    kept = {name: part for name, part in drafts.load(workspace, "train").items() if name in ("dataset", "model")}
    drafts.save(workspace, "train", drafts.preset(preset) | kept)
    form.forget("train")


workspace = Workspace.find()
cards.head("Train", "One recipe makes one LoRA. It is kept as you type, and the command line runs the very same file.")

draft = drafts.load(workspace, "train") or drafts.preset("style")
names = workspace.dataset_names()
left, right = st.columns([3, 2], gap="large")
with left:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("Begin from a preset")
        for preset, title in PRESETS.items():
            st.button(title, key=f"preset.{preset}", on_click=use, args=(preset,))
    dataset = cards.choose("Dataset", names, query="dataset", default=form.stored(draft, "dataset.name") or "")
    with st.grid("auto", min_column_width=200):
        values = form.draw("train", BASIC, draft)
    values = form.merge(values, form.draw("train", ["sample.prompts"], draft))
    with st.expander("Advanced", icon=":material/tune:"):
        for section in SECTIONS:
            rest = [path for path in form.paths(section) if path not in [*BASIC, "sample.prompts", "dataset.name"]]
            if not rest:
                continue
            st.markdown(f"**{section.capitalize() or 'General'}**")
            with st.grid("auto", min_column_width=220):
                values = form.merge(values, form.draw("train", rest, draft))
    form.put(values, "dataset.name", dataset)
    drafts.save(workspace, "train", values)

with right:
    st.subheader("Before it starts", anchor=False)
    found = inspect(values)
    report = check(found.recipe, workspace)
    wrong = [each.where for each in found.problems]
    blockers = [*found.problems, *(each for each in report.blockers if each.where not in wrong)]
    for problem in blockers:
        cards.finding(problem)
    for problem in report.warnings:
        cards.finding(problem, blocks=False)
    if not blockers:
        st.success(
            f"{found.recipe.train.steps:,} steps on {dataset}", title="Ready to start", icon=":material/check_circle:"
        )
    if st.button("Start training", type="primary", icon=":material/bolt:", disabled=bool(blockers), width="stretch"):
        with cards.reported():
            run = launch.start(workspace, "train", found.recipe.name, found.recipe.to_yaml())
            st.switch_page(cards.page("run"), query_params={"id": run.name})
    st.markdown("The same from the command line:")
    command = ["python", *launch.command(workspace, "train", str(drafts.path(workspace, "train")))[1:]]
    st.code(shlex.join(command), language="bash", wrap_lines=True)
