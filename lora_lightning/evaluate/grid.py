"""Which pictures a LoRA is judged by."""

from collections.abc import Sequence
from dataclasses import dataclass

SUBJECTS = (
    "a fox in a forest",
    "a city street at night",
    "a bowl of fruit on a table",
    "an old sailing ship",
    "a portrait of a woman",
    "a red bicycle against a wall",
    "a mountain lake",
    "a cat on a sofa",
)
"""Drawn when the recipe names no prompts: varied, concrete, and free of style words."""

BASE = 0.0


@dataclass(frozen=True)
class Cell:
    """One picture: a prompt (its place in the list), with the trigger or without, a strength and a seed."""

    prompt: int
    text: str
    triggered: bool
    weight: float
    seed: int


def grid(prompts: Sequence[str], trigger: str, weights: Sequence[float], seeds: int, first_seed: int) -> list[Cell]:
    """Each prompt with the trigger and without it, by the base and at every strength.

    Pictures of one prompt share their seeds, so that whatever differs comes from the LoRA. Ordered by strength: the
    adapter's weight is set once for each.
    """
    cells = []
    for weight in (BASE, *sorted(set(weights) - {BASE})):
        for place, prompt in enumerate(prompts):
            for seed in range(first_seed, first_seed + seeds):
                cells.append(Cell(place, with_trigger(prompt, trigger), True, weight, seed))
                if trigger:
                    cells.append(Cell(place, prompt, False, weight, seed))
    return cells


def with_trigger(prompt: str, trigger: str) -> str:
    """The prompt after the trigger, as training captions have it."""
    return f"{trigger}, {prompt}" if trigger else prompt
