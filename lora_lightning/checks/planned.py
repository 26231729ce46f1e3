"""How a training would be run on this machine's card: the plan that its job will follow, without a weight or torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from lora_lightning.checks.machine import processes
from lora_lightning.checks.model import FLUX2, pipeline_of
from lora_lightning.checks.sizes import config_of
from lora_lightning.datasets.buckets import tally
from lora_lightning.datasets.store import Picture
from lora_lightning.models.memory import Load
from lora_lightning.models.planner import CONTEXT, Asked, Card, Choice, as_set, choose
from lora_lightning.models.reasons import reasons
from lora_lightning.models.shape import shape_of
from lora_lightning.recipe import Recipe
from lora_lightning.runs.gpu import gpus
from lora_lightning.train import plan

DESKTOP_MIB = 1536
"""What is on a card beyond this is another job, which will be over when this one begins."""


@dataclass(frozen=True)
class Planned:
    """What is asked, of which card (None without one), and what came of it."""

    load: Load
    asked: Asked
    card: Card | None
    choice: Choice

    @property
    def reasons(self) -> list[str]:
        """For each part of the choice."""
        return reasons(self.load, self.asked, self.card, self.choice)


def planned(recipe: Recipe, pictures: Sequence[Picture] = ()) -> Planned | None:
    """For these pictures, or for squares; None where the model's configuration is not on this machine."""
    config = config_of(recipe.model.base, "transformer")
    if not config:
        return None
    data, shape = recipe.dataset, shape_of(config)
    sizes = {(picture.width, picture.height) for picture in pictures} or {(side, side) for side in data.resolutions}
    buckets = tally(sizes, data.resolutions, enlarge=data.enlarge)
    tokens = max(bucket.tokens for bucket in buckets) * (2 if data.references else 1)
    load = plan.load_of(shape, recipe.lora, recipe.train, recipe.sample, tokens)
    flux1 = pipeline_of(recipe.model.base) not in FLUX2
    asked = plan.asked(recipe.model, recipe.lora, recipe.train, flux1=flux1, processes=processes(recipe))
    card = _card() if recipe.train.strategy == "ddp" else None
    return Planned(load, asked, card, choose(load, asked, card) if card else as_set(asked, shape.blocks))


def _card() -> Card | None:
    """The largest: the queue gives a run whichever is free, but jobs differ less than this is known."""
    cards = gpus()
    if not cards:
        return None
    largest = max(cards, key=lambda card: card.memory_mib)
    free = largest.memory_mib - min(largest.used_mib, DESKTOP_MIB)
    return Card((free << 20) - CONTEXT, largest.capability)
