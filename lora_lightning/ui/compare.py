"""Up to four runs beside one another: their losses, their last samples, and what differs in their recipes."""

from collections.abc import Mapping
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import streamlit as st

from lora_lightning import recipe
from lora_lightning.runs.folder import RunFolder
from lora_lightning.ui import charts, form, samples
from lora_lightning.workspace import Workspace

MOST = 4
QUERY = "compare"


def show(workspace: Workspace, trained: Mapping[str, RunFolder]) -> None:
    """Choose, then compare; the choice is part of the page's address."""
    asked = [name for name in st.query_params.get_all(QUERY) if name in trained][:MOST]
    begin = asked or list(trained)[:2]
    chosen = st.multiselect(
        "Runs to compare",
        list(trained),
        begin,
        max_selections=MOST,
        key="compare.runs",
        placeholder="Choose two to four",
    )
    if chosen != begin:
        st.query_params[QUERY] = chosen
    if len(chosen) < 2:
        st.info("Choose two to four runs.", icon=":material/compare_arrows:")
        return
    runs = {name: trained[name] for name in chosen}
    st.subheader("Loss", anchor=False)
    charts.together(runs)
    st.subheader("Last samples", anchor=False)
    st.html(last_samples(workspace, runs))
    st.subheader("What differs in their recipes", anchor=False)
    rows = differences({name: dict(recipe.read(run.recipe_path)) for name, run in runs.items()})
    if rows.empty:
        st.markdown(":gray[Nothing but the name.]")
    else:
        st.dataframe(rows, hide_index=True, height="content")


def last_samples(workspace: Workspace, runs: Mapping[str, RunFolder]) -> str:
    """Runs across, prompts down."""
    drawn = {name: samples.find(run) for name, run in runs.items()}
    heads = [f"{name}, {samples.named(found.steps[-1])}" for name, found in drawn.items() if found.steps]
    columns = [(found.pictures[found.steps[-1]], found.prompts) for found in drawn.values() if found.steps]
    if not columns:
        return "<p>None of these has drawn a sample.</p>"
    places = sorted({place for pictures, _ in columns for place in pictures})
    words = {place: next((prompts[place] for _, prompts in columns if place in prompts), "") for place in places}
    return samples.grid(
        workspace, heads, [(words[place], [pictures.get(place) for pictures, _ in columns]) for place in places]
    )


def differences(recipes: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each field that is not the same in all, one column a run."""
    flat = {name: _flat(values) for name, values in recipes.items()}
    fields = dict.fromkeys(path for values in flat.values() for path in values)
    rows = [
        {"Field": form.title(path), "Path": path} | {name: _text(values.get(path)) for name, values in flat.items()}
        for path in fields
        if path != "name" and len({_text(values.get(path)) for values in flat.values()}) > 1
    ]
    return pd.DataFrame(rows)


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{above}.{name}" if above else str(name)
        found |= _flat(value, path) if isinstance(value, Mapping) else {path: value}
    return found


def _text(value: Any) -> str:
    return "not set" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
