"""What finished runs made, where it is used: drawn pictures with their recipes, published LoRAs with their links."""

from pathlib import Path

import streamlit as st
import yaml

from lora_lightning import recipe
from lora_lightning.runs.folder import RunFolder, runs
from lora_lightning.ui import cards, form, gallery
from lora_lightning.workspace import Workspace

RUNS_SHOWN = 10


def drawn(workspace: Workspace) -> None:
    """The pictures of the latest generations, each with what they were made from."""
    found = [
        run for run in runs(workspace) if run.read_state().get("verb") == "generate" and gallery.drawn(run.samples)
    ]
    if not found:
        st.info("Write a prompt and draw.", title="Nothing has been drawn yet", icon=":material/image:")
    for run in found[:RUNS_SHOWN]:
        with st.container(border=True):
            pictures = sorted(gallery.drawn(run.samples))
            st.page_link(cards.page("run"), label=f"**{run.name}**", query_params={"id": run.name})
            gallery.show_files(workspace, pictures, f"drawn.{run.name}", cell=180)
            with st.expander("Recipe"):
                st.code(_section(run, "generate"), language="yaml")


def evaluated(workspace: Workspace, name: str) -> None:
    """The evaluations of a LoRA: the sheet of pictures, and each measure with what it means."""
    found = [run for run in runs(workspace) if run.name.startswith(f"{name}.evaluate") and run.result()]
    if not found:
        st.info("Draw the comparison to see it here.", title="Not evaluated yet", icon=":material/query_stats:")
    for run in found[:RUNS_SHOWN]:
        with st.container(border=True):
            st.page_link(cards.page("run"), label=f"**{run.name}**", query_params={"id": run.name})
            sheet = Path(run.result()["made"]["sheet"])
            if sheet.is_file():
                gallery.picture(gallery.of_file(workspace, sheet, "the base and the LoRA from the same seeds"))
            st.dataframe(run.result()["report"].get("measures", []), hide_index=True)


def published(workspace: Workspace, name: str) -> None:
    """How the pushes of a LoRA ended, with their links."""
    for run in runs(workspace):
        if run.name.startswith(f"{name}.publish") and not run.status().live:
            with st.container(border=True):
                link = run.result().get("report", {}).get("url")
                st.page_link(cards.page("run"), label=f"**{run.name}**", query_params={"id": run.name})
                status = run.status()
                cards.state(status.state)
                if link:
                    st.markdown(f"[{link}]({link})")
                elif status.message:
                    st.markdown(f"{cards.escape(status.message)}  \n:gray[{cards.escape(status.hint)}]")


def next_step(run: RunFolder, verb: str) -> None:
    """What a finished run other than a training leads to."""
    values = recipe.read(run.recipe_path)
    dataset, name = form.stored(values, "dataset.name") or "", str(values.get("name", ""))
    if verb == "caption":
        cards.next_step("Train on this dataset", to="train", icon=":material/bolt:", query={"dataset": dataset})
    elif verb == "evaluate":
        cards.next_step("See the evaluation", to="evaluate", icon=":material/query_stats:", query={"lora": name})
    elif verb == "generate" and (varied := form.stored(values, "generate.vary")):
        query = {"dataset": varied, "tab": "Variations"}
        cards.next_step("Look at the variations", to="datasets", icon=":material/compare:", query=query)
    elif verb == "generate":
        cards.next_step("See the pictures", to="generate", icon=":material/image:")
    elif verb == "publish":
        cards.next_step("See what was published", to="publish", icon=":material/publish:", query={"lora": name})


def card_text(text: str) -> str:
    """A model card without its front matter and its pictures, which are shown beside it."""
    body = text.split("---\n", 2)[-1] if text.startswith("---\n") else text
    return "\n".join(line for line in body.splitlines() if not line.lstrip().startswith(("![", "<img", "<Gallery")))


def _section(run: RunFolder, name: str) -> str:
    values = yaml.safe_load(run.recipe_path.read_text(encoding="utf-8"))
    shown = {part: values.get(part) for part in ("model", name)}
    return str(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))
