"""Generate: draw pictures with one or several LoRAs."""

import streamlit as st

from lora_lightning import recipe
from lora_lightning.runs import launch
from lora_lightning.ui import cards, drafts, form, monitor, redraw, results
from lora_lightning.workspace import Workspace

LISTS = ("generate.prompts", "generate.loras", "generate.vary")
FIELDS = ["model.base", *(path for path in form.paths("generate") if path not in LISTS)]
FILLED, AS_FILLED = "picture filled in from", "values filled in"


def insert(lora: str) -> None:
    """Add the chosen LoRA at the chosen strength to the end of every prompt."""
    prompts = form.widget_key("generate", "generate.prompts")
    tag = f"<lora:{lora}:{st.session_state['generate_weight']:g}>"
    lines = [line for line in st.session_state[prompts].split("\n") if line.strip()] or [""]
    st.session_state[prompts] = "\n".join(f"{line} {tag}".strip() for line in lines)


workspace = Workspace.find()
cards.head("Generate", "The same words, seed and settings draw the same picture.")

draft, loras = drafts.load(workspace, "generate"), workspace.lora_names()
first = form.widget_key("generate", "generate.prompts") not in st.session_state
picture = st.query_params.get("from", "")
with cards.reported():
    if picture and st.session_state.get(FILLED) != picture:
        draft = form.merge(draft, redraw.of_picture(workspace, picture))
        st.session_state[FILLED] = picture
        st.session_state.pop(AS_FILLED, None)
        if not first:
            form.forget("generate")
    elif first and st.query_params.get("lora") in loras and not form.stored(draft, "generate.prompts"):
        draft = form.merge(draft, redraw.with_lora(workspace, st.query_params["lora"]))
if picture and st.session_state.get(FILLED) == picture:
    st.success("Draw it as it was, or change a word.", title=f"Filled in from {picture.rsplit('/', 1)[-1]}")
left, right = st.columns([2, 3], gap="large")
with left:
    prompts = form.draw("generate", ["generate.prompts"], draft)
    if loras:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            chosen = cards.choose("LoRA", loras, query="lora")
            st.number_input("Weight", -4.0, 4.0, 1.0, step=0.1, key="generate_weight", width=140)
            st.button(
                "Insert",
                on_click=insert,
                args=(chosen,),
                icon=":material/add:",
                help="Adds <lora:name:weight> to each prompt.",
            )
    else:
        st.info("Train one first; until then the base model draws alone.", title="There is no finished LoRA yet")
    with st.grid("auto", min_column_width=125):
        values = form.merge(prompts, form.draw("generate", FIELDS, draft))
    drafts.save(workspace, "generate", {"name": "pictures"} | values)
    if picture and st.session_state.setdefault(AS_FILLED, values) != values:
        st.query_params.pop("from")  # a reload keeps what was changed since
    busy = [run for run in monitor.active(workspace) if run.read_state().get("verb") == "generate"]
    count = len(values["generate"]["prompts"]) * (values["generate"]["images_per_prompt"] or 0)
    label = f"Draw {cards.counted(count, 'picture')}"
    icon, keys = ":material/brush:", "Ctrl+Enter"
    if st.button(label, type="primary", icon=icon, disabled=not count, width="stretch", shortcut=keys):
        with cards.reported():
            job = recipe.parse({"name": "pictures"} | values)
            launch.start(workspace, "generate", job.name, job.to_yaml())
            st.rerun()

with right:
    for run in busy:
        monitor.card(workspace, run, key=f"generate.{run.name}")
    results.drawn(workspace)
