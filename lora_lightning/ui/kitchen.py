"""Where a recipe is made: presets, advice, its fields, and recipes that come from elsewhere or go there."""

from collections.abc import Mapping
from typing import Any

import streamlit as st
import yaml

from lora_lightning.recipe import Recipe, inspect
from lora_lightning.ui import advice, cards, drafts, form
from lora_lightning.workspace import Workspace

PRESETS = {"character": "Character", "style": "Style", "product": "Product"}
KEPT = ("dataset", "model")
"""What a preset leaves as it is."""

BASIC = ["name", "trigger", "model.base", "model.low_vram", "train.steps", "train.learning_rate", "lora.rank"]
APART = [*BASIC, "sample.prompts", "dataset.name"]
SECTIONS = {
    "": "General",
    "model": "Base model",
    "dataset": "Dataset",
    "lora": "Adapter",
    "train": "Training",
    "sample": "Samples",
}


def begin(workspace: Workspace, draft: Mapping[str, Any]) -> None:
    """What the LoRA is of, and which way to lean: each a click that fills in the form."""
    with st.container(horizontal=True, vertical_alignment="center", key="presets"):
        st.markdown("A LoRA of a", width=90)
        for name, title in PRESETS.items():
            st.button(title, key=f"preset.{name}", on_click=_preset, args=(workspace, name))
    with st.container(horizontal=True, vertical_alignment="center", key="leanings"):
        st.markdown("Lean towards", width=90)
        for name, bundle in advice.BUNDLES.items():
            st.button(
                bundle.title,
                key=f"advice.{name}",
                icon=bundle.icon,
                help=bundle.why,
                on_click=_advise,
                args=(workspace, bundle, draft),
            )
    moved = st.session_state.pop("advice.moved", None)
    if moved is not None:
        st.info(" · ".join(moved) or "All of it is so already.", title="Changed" if moved else "Nothing to change")


def basic(draft: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that every LoRA needs a thought about."""
    with st.grid("auto", min_column_width=200):
        values = form.draw("train", BASIC, draft)
    return form.merge(values, form.draw("train", ["sample.prompts"], draft))


def advanced(draft: Mapping[str, Any]) -> dict[str, Any]:
    """Every other field of a training recipe, by section; a word narrows them down."""
    sought = st.text_input(
        "Find a field", key="train.find", placeholder="such as dropout", icon=":material/search:", live=True
    )
    values: dict[str, Any] = {}
    for section, title in SECTIONS.items():
        shown = [path for path in form.paths(section) if path not in APART and _matches(path, sought)]
        if shown:
            opened = st.expander(title, expanded=bool(sought) or section == "train")
            with opened, st.grid("auto", min_column_width=180):
                values = form.merge(values, form.draw("train", shown, draft))
    if sought and not values:
        st.markdown(":gray[No field is called so, and none says so.]")
    return values


def share(workspace: Workspace, values: Mapping[str, Any]) -> None:
    """The recipe as a file to keep or give away, and one from elsewhere taken in."""
    title = "Save, share or open a recipe"
    with st.expander(title, icon=":material/share:", key="train.share", on_change="rerun") as opened:
        if not opened.open:
            return
        text = inspect(values).recipe.to_yaml()
        name = f"{values.get('name') or 'recipe'}.yaml"
        st.download_button("Save this recipe", text, name, "application/yaml", icon=":material/download:")
        upload = st.file_uploader("Open a recipe file", type=["yaml", "yml"], key="recipe.file")
        pasted = st.text_area("Or paste one", key="recipe.text", height=110, placeholder="name: my-style\n...")
        given = upload.getvalue().decode(errors="replace") if upload else pasted
        if st.button("Use it", key="recipe.use", icon=":material/file_open:", disabled=not given.strip()):
            _take(workspace, given)


def _matches(path: str, sought: str) -> bool:
    return sought.strip().lower() in f"{path} {form.title(path)} {form.help_of(path)}".lower()


def _preset(workspace: Workspace, name: str) -> None:
    """Start over from a shipped recipe, on the same dataset and base model."""
    kept = {part: value for part, value in drafts.load(workspace, "train").items() if part in KEPT}
    _replace(workspace, form.merge(drafts.preset(name), kept))


def _advise(workspace: Workspace, bundle: advice.Bundle, draft: Mapping[str, Any]) -> None:
    values = drafts.load(workspace, "train") or draft
    moved = advice.changes(bundle, values)
    st.session_state["advice.moved"] = [cards.escape(str(change)) for change in moved]
    _replace(workspace, advice.applied(values, moved))


def _take(workspace: Workspace, text: str) -> None:
    """Make a recipe from elsewhere the draft; what is wrong in it shows beside the form."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        st.error("Copy the whole file.", title=f"This is no YAML: line {line} cannot be read")
        return
    if not isinstance(values, Mapping) or not set(values) & set(Recipe.model_fields):
        st.error("A recipe begins with a line such as `name: my-style`.", title="This is no recipe")
        return
    _replace(workspace, values)
    st.rerun()


def _replace(workspace: Workspace, values: Mapping[str, Any]) -> None:
    drafts.save(workspace, "train", values)
    form.forget("train")
