"""Three bundles of advice, each one click: what lies outside a good range is moved into it, and that is said."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_lightning.recipe import inspect
from lora_lightning.ui import form


@dataclass(frozen=True)
class Bundle:
    """Advice for one aim.

    Attributes:
        title: of its button.
        icon: likewise.
        why: what it buys and what it costs.
        ranges: field -> lowest and highest good value.
        values: field -> the one good value.
    """

    title: str
    icon: str
    why: str
    ranges: Mapping[str, tuple[float, float]]
    values: Mapping[str, Any]


BUNDLES = {
    "quality": Bundle(
        "Quality",
        ":material/diamond:",
        "1,200 to 1,500 steps, rank 20 to 32, learning rate 2e-4 to 3e-4: finer detail, half as much time again.",
        {"train.steps": (1200, 1500), "lora.rank": (20, 32), "train.learning_rate": (2e-4, 3e-4)},
        {},
    ),
    "speed": Bundle(
        "Speed",
        ":material/speed:",
        "800 to 1,000 steps, rank 16, FLUX.1-schnell: a first result soon, drawn in 4 steps.",
        {"train.steps": (800, 1000)},
        {"lora.rank": 16, "model.base": "schnell", "sample.steps": 4},
    ),
    "memory": Bundle(
        "Low VRAM",
        ":material/memory:",
        "4-bit base, batch size 1, rank 8 to 12, activations recomputed: for a GPU of 12 to 16 GB, at some speed.",
        {"lora.rank": (8, 12)},
        {"model.low_vram": True, "train.batch_size": 1, "train.gradient_checkpointing": True},
    ),
}


@dataclass(frozen=True)
class Change:
    """One field that a bundle moved."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{form.title(self.path)} {_shown(self.before)} → {_shown(self.after)}"


def changes(bundle: Bundle, values: Mapping[str, Any]) -> list[Change]:
    """What a bundle would change in some values; a field that is good already stays as it is."""
    now = inspect(values).recipe.model_dump(mode="json")
    wanted = {path: min(max(form.stored(now, path), low), high) for path, (low, high) in bundle.ranges.items()} | dict(
        bundle.values
    )
    found = [Change(path, form.stored(now, path), value) for path, value in wanted.items()]
    return [change for change in found if change.before != change.after]


def applied(values: Mapping[str, Any], moved: list[Change]) -> dict[str, Any]:
    """The values with the changes in them."""
    made = form.merge(values)
    for change in moved:
        section, _, name = change.path.rpartition(".")
        made = form.merge(made, {section: {name: change.after}})
    return made


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
