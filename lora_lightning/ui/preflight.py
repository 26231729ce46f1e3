"""Before a training: what it will take, which noise levels it draws, and what it sees of each picture."""

from collections import Counter
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

import pandas as pd  # type: ignore[import-untyped]
import streamlit as st

from lora_lightning.checks.report import Estimate
from lora_lightning.datasets.buckets import Bucket, choose, crop_box
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.recipe import Recipe
from lora_lightning.ui import cards, charts

POINTS = 120
MOST_CURVES = 4
MOST_CROPS = 24


def figures(estimates: Sequence[Estimate]) -> None:
    """What the run will take, each with what that rests on; a bar where it is known what this machine has."""
    with st.grid("auto", min_column_width=140):
        for estimate in estimates:
            if estimate.limit is None:
                told, name = estimate.shown, cards.capital(estimate.name)
                st.metric(name, told, border=True, height="stretch", help=estimate.why)
    for estimate in estimates:
        if estimate.limit is not None:
            _bar(estimate, estimate.amount or 0.0, estimate.limit)


def _bar(estimate: Estimate, needed: float, there: float) -> None:
    """What is needed of what is there, in words and as a bar; the words tell when it is too much."""
    short = ":red[:material/error: too little] " if needed > there else ""
    told = f"**{cards.capital(estimate.name)}** {short}{estimate.shown} of {there:,.1f} {estimate.unit}"
    with st.container(gap="xsmall"):
        st.progress(min(1.0, needed / there) if there else 1.0, text=told)
        st.markdown(f":small[:gray[{cards.escape(cards.capital(estimate.why))}]]")


def buckets(recipe: Recipe, pictures: Sequence[Picture]) -> dict[Bucket, int]:
    """How many pictures train at each size."""
    found: Counter[Bucket] = Counter()
    for (width, height), count in Counter((picture.width, picture.height) for picture in pictures).items():
        for bucket in choose(width, height, recipe.dataset.resolutions, enlarge=recipe.dataset.enlarge):
            found[bucket] += count
    return dict(sorted(found.items()))


def density(recipe: Recipe) -> pd.DataFrame:
    """Of the noise level sigma: one column for each resolution."""
    sigmas = [(place + 0.5) / POINTS for place in range(POINTS)]
    drawn = recipe.train.sigmas
    sides = recipe.dataset.resolutions[-MOST_CURVES:]
    columns = {f"{side} px": [drawn.density(sigma, (side // 16) ** 2) for sigma in sigmas] for side in sides}
    return pd.DataFrame({"sigma": sigmas} | columns)


def noise(recipe: Recipe) -> None:
    """The density as a chart."""
    curve = density(recipe)
    names = [name for name in curve if name != "sigma"]
    st.markdown(
        ":gray[How often each noise level is trained. Towards 1 (noise) a LoRA learns layout and palette, towards 0 "
        "(picture) fine detail.]"
    )
    told = ", ".join(f"{name} most at {curve['sigma'][curve[name].idxmax()]:.2f}" for name in names)
    charts.draw(curve, "sigma", dict(zip(names, charts.COLOURS, strict=False)), alt=f"Density: {told}")


def crops(recipe: Recipe, dataset: Dataset, pictures: Sequence[Picture]) -> None:
    """What training sees of the first pictures, each at its largest size."""
    counts = buckets(recipe, pictures)
    told = " · ".join(f"{bucket} ({count})" for bucket, count in counts.items())
    st.markdown(f":gray[{told}]")
    tiles = [_crop(recipe, dataset, picture) for picture in pictures[:MOST_CROPS]]
    st.html(f'<div class="ll-crops">{"".join(tiles)}</div>')
    if len(pictures) > MOST_CROPS:
        st.markdown(f":gray[and {len(pictures) - MOST_CROPS:,} more]")


def _crop(recipe: Recipe, dataset: Dataset, picture: Picture) -> str:
    """The thumbnail, cut by the browser where training cuts."""
    bucket = choose(picture.width, picture.height, recipe.dataset.resolutions, enlarge=recipe.dataset.enlarge)[-1]
    box = crop_box(picture.width, picture.height, bucket, (picture.focus_x, picture.focus_y))
    cut = 1 - (bucket.width * bucket.height) / (box.resized_width * box.resized_height)
    x = box.left / max(1, box.resized_width - bucket.width)
    y = box.top / max(1, box.resized_height - bucket.height)
    words = f"{bucket}, {cut:.0%} cut off" if cut >= 0.005 else f"{bucket}, whole"
    address = f"/thumbs/{quote(dataset.name)}/{quote(picture.file)}"
    alt = escape(f"{picture.name}: {words}", quote=True)
    return (
        f'<figure><img src="{address}" alt="{alt}" loading="lazy"'
        f' style="aspect-ratio:{bucket.width}/{bucket.height};object-position:{x:.1%} {y:.1%}">'
        f"<figcaption><b>{escape(picture.name)}</b><span>{words}</span></figcaption></figure>"
    )
