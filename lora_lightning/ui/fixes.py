"""A button beside a finding that does what its hint says, where a button can."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from lora_lightning.errors import Problem
from lora_lightning.recipe import Recipe
from lora_lightning.runs import launch
from lora_lightning.ui import cards, form
from lora_lightning.workspace import Workspace


@dataclass(frozen=True)
class Fix:
    """A way out: a page that helps, or values for the draft."""

    label: str
    page: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


def find(problem: Problem, recipe: Recipe, workspace: Workspace) -> Fix | None:
    """The way out of a problem of a training recipe; None when only a person can choose."""
    dataset = {"dataset": recipe.dataset.name}
    if problem.where == "name" and "exists already" in problem.message:
        free = launch.clone_name(workspace, recipe.name)
        return Fix(f"Call it {free}", values={"name": free})
    if problem.where == "dataset.name":
        if "without a caption" in problem.message:
            return Fix("Caption them", "captions", dataset)
        return (
            Fix("Go to the datasets", "datasets") if workspace.dataset_names() else Fix("Import pictures", "datasets")
        )
    if problem.where == "trigger" and recipe.trigger:
        return Fix("Look at the captions", "captions", dataset)
    if problem.where == "dataset.resolutions" and "below" in problem.message:
        return Fix("Look at them", "datasets", dataset | {"tab": "Check pictures"})
    if problem.where in ("disk", "--home") or "logged in" in problem.message:
        return Fix("Open the settings", "settings")
    return None


def back_to_default(problem: Problem) -> Fix | None:
    """The way out of a value that no recipe may hold; None for a field that has no default, or that is none."""
    path = ".".join(part for part in problem.where.split(".") if not part.isdecimal())
    try:
        value = form.default(path)
    except (KeyError, TypeError):
        return None
    if value is None:
        return None
    values: dict[str, Any] = {}
    form.put(values, path, list(value) if isinstance(value, tuple) else value)
    return Fix("Put back the default", values=values)


def button(fix: Fix, key: str) -> Mapping[str, Any] | None:
    """Draw it; gives the values for the draft when it was pressed and there are any."""
    if fix.page:
        st.page_link(
            cards.page(fix.page), label=fix.label, icon=":material/arrow_forward:", query_params=dict(fix.query)
        )
        return None
    return fix.values if st.button(fix.label, key=key, icon=":material/build:") else None
