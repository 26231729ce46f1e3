"""Curves of runs, read as they grow and thinned out before they are drawn."""

import json
import threading
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import pandas as pd  # type: ignore[import-untyped]
import streamlit as st

from lora_lightning.runs.folder import RunFolder

POINTS = 400
SMOOTHING = 0.05
OPEN_FILES = 32
TITLES = {
    "loss": "Loss by noise level (sigma)",
    "validation": "Held-out loss against the base (below 1 is better)",
    "seconds": "Seconds by phase",
}
"""Of the charts of figures such as `loss/detail`; they come first, in this order."""

NOT_DRAWN = {"step", "loss", "validation/error"}
COLOURS = ["#7357ff", "#b87700", "#0f9a78", "#d64a8b"]
"""Of up to four curves: apart in hue and in lightness, and readable on both themes."""

LEGEND = {"orient": "top", "title": None, "offset": 4}


class Rows:
    """The rows of one metrics.jsonl as a table; only what is new is read again.

    Args:
        path: of the file, which may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._table = pd.DataFrame()
        self._reading = threading.Lock()

    def table(self) -> pd.DataFrame:
        """One row a step in order, one column a figure; a step that was made again shows what it gave last."""
        with self._reading:
            new = self._new_rows()
            if new:
                rows = pd.DataFrame(new, dtype=float)
                table = pd.concat([self._table, rows.set_index("step", drop=False)]) if len(self._table) else rows
                table = table.set_index("step", drop=False)
                if not table.index.is_unique:
                    table = table.groupby(level=0).last()
                self._table = table.sort_index()
            return self._table

    def _new_rows(self) -> list[dict[str, float]]:
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._offset:  # begun anew
                    self._offset, self._table = 0, pd.DataFrame()
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines() if line]


@st.cache_resource(max_entries=OPEN_FILES, show_spinner=False)
def _rows(path: str) -> Rows:
    return Rows(Path(path))


def table(run: RunFolder) -> pd.DataFrame:
    """Everything that a run has measured, by step."""
    return _rows(str(run.metrics_path)).table()


def losses(run: RunFolder) -> None:
    """The loss over the steps: as measured, and smoothed."""
    curve = loss_curve(table(run))
    if len(curve) > 1:
        st.subheader("Loss", anchor=False)
        told = f"Training loss to step {int(curve['step'].iloc[-1])}, now {curve['smoothed'].iloc[-1]:.4g}"
        draw(curve, "step", {"measured": "#9d8cff66", "smoothed": COLOURS[0]}, height=300, alt=told)


def every(run: RunFolder) -> None:
    """All that was measured: the loss, its bands and validation in one chart each, and the rest."""
    measured = table(run)
    if len(measured) < 2:
        st.info(
            "Curves begin with the second training step.", title="Nothing to draw yet", icon=":material/show_chart:"
        )
        return
    losses(run)
    for title, names in groups(list(measured.columns)).items():
        curve = thinned(measured, names).rename(columns={name: _label(name) for name in names})
        if len(curve) > 1:
            st.subheader(title, anchor=False)
            shown = [name for name in curve if name != "step"]
            told = ", ".join(f"{name} {curve[name].iloc[-1]:.4g}" for name in shown)
            draw(curve, "step", dict(zip(shown, cycle(COLOURS), strict=False)), alt=f"{title}: last {told}")


def draw(curves: pd.DataFrame, x: str, colours: Mapping[str, str], *, height: int = 260, alt: str) -> None:
    """Lines over `x`, each in its colour.

    The specification is written out, because `st.line_chart` builds and validates one anew each time: 40 ms of every
    second that somebody watches.
    """
    lines = curves.melt(id_vars=x, value_vars=list(colours), var_name="curve").dropna()
    hue = {"domain": list(colours), "range": list(colours.values())}
    spec = {
        "mark": {"type": "line", "tooltip": True, "clip": True},
        "encoding": {
            "x": {"field": x, "type": "quantitative", "axis": {"grid": False}},
            "y": {"field": "value", "type": "quantitative", "title": None},
            "color": {"field": "curve", "type": "nominal", "scale": hue, "legend": LEGEND},
        },
    }
    st.vega_lite_chart(lines, spec, height=height, alt=alt)


def groups(names: Sequence[str]) -> dict[str, list[str]]:
    """Which figures share a chart: those before whose slash the same word stands, and each of the others alone."""
    found: dict[str, list[str]] = {}
    for name in sorted(set(names) - NOT_DRAWN):
        group, slash, _ = name.partition("/")
        title = TITLES.get(group, _label(group).capitalize()) if slash else _label(name).capitalize()
        found.setdefault(title, []).append(name)
    first = list(TITLES.values())
    return dict(sorted(found.items(), key=lambda item: first.index(item[0]) if item[0] in first else len(first)))


def _label(name: str) -> str:
    return name.rpartition("/")[2].replace("_", " ")


def together(runs: Mapping[str, RunFolder]) -> None:
    """The smoothed losses of several runs in one chart."""
    curves = {
        name: loss_curve(table(run)).set_index("step")["smoothed"] for name, run in runs.items() if len(table(run)) > 1
    }
    if not curves:
        st.info("None of these has measured a loss.", icon=":material/show_chart:")
        return
    wide = pd.DataFrame(curves).sort_index().interpolate(limit_area="inside").rename_axis("step").reset_index()
    colours = dict(zip(curves, COLOURS, strict=False))
    draw(wide, "step", colours, height=320, alt=f"Losses of {', '.join(curves)}")


def loss_curve(measured: pd.DataFrame) -> pd.DataFrame:
    """Columns step, measured, smoothed: at most POINTS rows, each the mean of the steps it stands for."""
    if "loss" not in measured:
        return pd.DataFrame(columns=["step", "measured", "smoothed"])
    rows = measured[["step", "loss"]].dropna().reset_index(drop=True)
    rows["smoothed"] = rows["loss"].ewm(alpha=SMOOTHING).mean()
    return _means(rows).rename(columns={"loss": "measured"})


def thinned(measured: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Step and some figures, at most POINTS rows: losses smoothed, what a step lacks as it was last."""
    rows = measured[["step", *names]].dropna(subset=list(names), how="all").reset_index(drop=True)
    noisy = [name for name in names if name.startswith("loss/")]
    rows[noisy] = rows[noisy].ewm(alpha=SMOOTHING, ignore_na=True).mean()
    return _means(rows).ffill()


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    width = max(1, -(-len(rows) // POINTS))
    return rows.groupby(rows.index // width).mean()
