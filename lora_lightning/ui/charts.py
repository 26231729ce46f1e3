"""Curves of a run, thinned out before they are drawn."""

import pandas as pd  # type: ignore[import-untyped]
import streamlit as st

from lora_lightning.runs.folder import RunFolder

POINTS = 400
SMOOTHING = 0.05


def losses(run: RunFolder) -> None:
    """The loss over the steps: as measured, and smoothed."""
    curve = loss_curve(run.metrics())
    if len(curve) > 1:
        st.subheader("Loss", anchor=False)
        st.line_chart(
            curve,
            x="step",
            y=["measured", "smoothed"],
            color=["#9d8cff66", "#7357ff"],
            height=260,
            alt=f"Training loss to step {int(curve['step'].iloc[-1])}, now {curve['smoothed'].iloc[-1]:.4g}",
        )


def loss_curve(metrics: list[dict[str, float]]) -> pd.DataFrame:
    """Columns step, measured, smoothed: at most POINTS rows, each the mean of the steps it stands for."""
    rows = pd.DataFrame([row for row in metrics if "loss" in row], columns=["step", "loss"], dtype=float)
    if rows.empty:
        return pd.DataFrame(columns=["step", "measured", "smoothed"])
    rows = rows.drop_duplicates("step", keep="last").sort_values("step", ignore_index=True)
    rows["smoothed"] = rows["loss"].ewm(alpha=SMOOTHING).mean()
    width = -(-len(rows) // POINTS)
    return rows.groupby(rows.index // width).mean().rename(columns={"loss": "measured"})
