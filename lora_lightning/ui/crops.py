"""The exact cut that each training size takes from a picture, and the point around which it is taken, to be moved."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import streamlit as st

from lora_lightning.datasets import focus
from lora_lightning.datasets.buckets import Bucket, choose, crop_box
from lora_lightning.datasets.config import DatasetConfig
from lora_lightning.datasets.snapshot import Snapshot
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.ui import cards, drafts, form, gallery
from lora_lightning.workspace import Workspace

PER_PAGE = 12
_STATIC = Path(__file__).parent / "static"


def draw(workspace: Workspace, snapshot: Snapshot) -> None:
    """A page of pictures with their cuts, those that lose most first."""
    sides = resolutions(workspace)
    st.markdown(
        f":gray[What is cut out for {', '.join(map(str, sides))} pixels. Click what matters in a picture, or use the "
        "arrow keys: its cuts move there. The picture itself stays as it is.]"
    )
    ordered = _ordered(snapshot.pictures, snapshot.token, tuple(sides))
    page = gallery.pager(len(ordered), "crops", PER_PAGE)
    shown = ordered[(page - 1) * PER_PAGE : page * PER_PAGE]
    html, css, js = ((_STATIC / f"crops.{end}").read_text(encoding="utf-8") for end in ("html", "css", "js"))
    component = st.components.v2.component("ll_crops", html=html, css=css, js=js)
    key = f"crops.{snapshot.dataset.name}"
    component(
        key=key,
        data={"tiles": [_tile(workspace, snapshot.dataset, picture, sides) for picture in shown]},
        on_moved_change=lambda: _moved(snapshot.dataset, key),
    )
    st.dataframe(
        [
            {"Picture": p.name, "Trained at": ", ".join(f"{b.width} x {b.height}" for b in _buckets(p, sides)),
             "Cut off": f"{lost(p, sides):.0%}", "Centre": f"{p.focus_x:.0%} across, {p.focus_y:.0%} down"}
            for p in shown
        ],
        hide_index=True,
    )  # fmt: skip


def resolutions(workspace: Workspace) -> Sequence[int]:
    """The training resolutions of the Train page's draft."""
    drafted = form.stored(drafts.load(workspace, "train"), "dataset.resolutions")
    sides = [side for side in drafted if isinstance(side, int)] if isinstance(drafted, list) else []
    return sides or DatasetConfig().resolutions


def lost(picture: Picture, sides: Sequence[int]) -> float:
    """The largest share of a picture that one of its training sizes leaves out."""
    return _lost(picture.width, picture.height, tuple(sides))


@lru_cache(2**15)
def _lost(width: int, height: int, sides: tuple[int, ...]) -> float:
    crops = (crop_box(width, height, bucket) for bucket in choose(width, height, sides))
    kept = ((c.right - c.left) * (c.bottom - c.top) / (c.resized_width * c.resized_height) for c in crops)
    return 1 - min(kept)


def _buckets(picture: Picture, sides: Sequence[int]) -> list[Bucket]:
    return choose(picture.width, picture.height, sides)


@st.cache_resource(max_entries=2, show_spinner=False)
def _ordered(_pictures: Sequence[Picture], token: str, sides: tuple[int, ...]) -> list[Picture]:
    return sorted(_pictures, key=lambda picture: -lost(picture, sides))


def _tile(workspace: Workspace, dataset: Dataset, picture: Picture, sides: Sequence[int]) -> dict[str, Any]:
    """What the browser needs to draw one picture: shares of its width and height throughout."""
    centre = (picture.focus_x, picture.focus_y)
    boxes = []
    for bucket in _buckets(picture, sides):
        crop = crop_box(picture.width, picture.height, bucket, centre)
        boxes.append(
            {
                "label": f"{bucket.width} x {bucket.height}",
                "left": crop.left / crop.resized_width,
                "top": crop.top / crop.resized_height,
                "width": (crop.right - crop.left) / crop.resized_width,
                "height": (crop.bottom - crop.top) / crop.resized_height,
            }
        )
    thumb = gallery.of_picture(workspace, dataset, picture).thumb
    return {"id": picture.id, "name": picture.name, "thumb": thumb, "x": centre[0], "y": centre[1], "boxes": boxes}


def _moved(dataset: Dataset, key: str) -> None:
    """Keep the point that was chosen in the browser."""
    chosen = st.session_state[key].moved
    with cards.reported():
        moved = focus.move(dataset, int(chosen["id"]), float(chosen["x"]), float(chosen["y"]))
        st.toast(f"{cards.escape(moved.name)}: cuts moved", icon=":material/crop:")
