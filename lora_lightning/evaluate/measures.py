"""What a LoRA learnt, in numbers that are 0 for the base and 1 for the best that the training pictures allow.

Shapes: N pictures, P prompts, D features of an embedding; rows are unit vectors.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NEIGHBOURS = 3
MEASURABLE = 0.05
"""Below this distance between the base and the training pictures the encoder cannot see the style."""


@dataclass(frozen=True)
class Measure:
    """One number with what it says; `value` is None when it cannot be measured, and `note` says why."""

    name: str
    value: float | None
    meaning: str
    note: str = ""


def unit(x_ND: Array) -> Array:
    """Rows scaled to length 1."""
    return np.asarray(x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True))


def likeness(x_ND: Array, training_ND: Array) -> float:
    """S(X) = mean over x of the mean cosine to its k nearest training pictures, k = 3."""
    return float(_nearest(x_ND @ training_ND.T).mean())


def ceiling(training_ND: Array) -> float:
    """S of the training pictures themselves, each against the others."""
    cosines = training_ND @ training_ND.T
    np.fill_diagonal(cosines, -np.inf)
    return float(_nearest(cosines).mean())


def _nearest(cosines_NM: Array) -> Array:
    k = min(NEIGHBOURS, int(np.isfinite(cosines_NM).sum(axis=1).min()))
    return np.sort(cosines_NM, axis=1)[:, -k:]


def style_transfer(base_ND: Array, lora_ND: Array, training_ND: Array) -> Measure:
    """(S(lora) - S(base)) / (S(training) - S(base)), on prompts with the trigger."""
    name, meaning = "style_transfer", "0: like the base, 1: as close as the training pictures are to each other"
    base, top = likeness(base_ND, training_ND), ceiling(training_ND)
    if top - base < MEASURABLE:
        return Measure(name, None, meaning, "the encoder hardly tells the base from the training pictures")
    return Measure(name, (likeness(lora_ND, training_ND) - base) / (top - base), meaning)


def trigger_response(
    base_ND: Array, lora_ND: Array, bare_base_ND: Array, bare_lora_ND: Array, training_ND: Array
) -> Measure:
    """1 - (S(lora) - S(base) without the trigger) / (the same with it)."""
    name, meaning = "trigger_response", "1: only with the trigger, 0: always on"
    gained = likeness(lora_ND, training_ND) - likeness(base_ND, training_ND)
    bare = likeness(bare_lora_ND, training_ND) - likeness(bare_base_ND, training_ND)
    if gained < MEASURABLE:
        return Measure(name, None, meaning, "the LoRA changes too little to tell")
    return Measure(name, 1 - bare / gained, meaning)


def prompt_adherence(base_ND: Array, lora_ND: Array, texts_ND: Array) -> Measure:
    """Mean cosine of picture and prompt with the LoRA, over the same for the base; row i belongs to text i."""
    base, lora = (float((x * texts_ND).sum(axis=1).mean()) for x in (base_ND, lora_ND))
    meaning = "1: shows what is asked as well as the base does"
    if base < MEASURABLE:
        return Measure("prompt_adherence", None, meaning, "the encoder does not recognise the base's pictures either")
    return Measure("prompt_adherence", lora / base, meaning)


def recall(pictures_ND: Array, texts_PD: Array, right_N: NDArray[np.int64]) -> float:
    """Share of pictures that are closer to their own prompt than to any other."""
    return float(((pictures_ND @ texts_PD.T).argmax(axis=1) == right_N).mean())


def content_kept(base_ND: Array, lora_ND: Array, texts_PD: Array, right_N: NDArray[np.int64]) -> Measure:
    """R@1 of the LoRA over R@1 of the base: does each picture still match its own prompt best?"""
    base, lora = recall(base_ND, texts_PD, right_N), recall(lora_ND, texts_PD, right_N)
    meaning = "1: content is recognised as often as in the base's pictures"
    if base == 0:
        return Measure("content_kept", None, meaning, "the base's pictures match no prompt")
    return Measure("content_kept", lora / base, meaning, f"{lora:.0%} of {len(right_N)} pictures; the base {base:.0%}")
