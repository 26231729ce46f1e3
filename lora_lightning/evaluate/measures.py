"""What a LoRA learnt, in numbers that mean the same for every LoRA.

Shapes: N pictures, P prompts, D features of an embedding; rows are unit vectors.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

AGREEING = 0.3
"""Two halves of the training set must point the same way at least so far, as a cosine, for a style to be visible."""

VISIBLE = 0.05
"""Below this the encoder cannot tell."""


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


@dataclass(frozen=True)
class Style:
    """The way from what the base draws for the training captions to the training pictures, in embedding space.

    d = mean_i (phi(T_i) - phi(base(caption_i))): the content of each pair is the same and cancels, what stays is the
    style. After the directional loss of Gal et al. 2022 (arXiv 2108.00946, section 4.1), used as a measure.
    """

    direction_D: Array
    agreement: float

    @classmethod
    def between(cls, base_ND: Array, training_ND: Array) -> "Style":
        """The style of training pictures; row i of `base_ND` is drawn from the caption of picture i."""
        steps_ND = training_ND - base_ND
        halves = [steps_ND[start::2].mean(axis=0) for start in (0, 1)]
        lengths = float(np.linalg.norm(halves[0]) * np.linalg.norm(halves[1]))
        return cls(steps_ND.mean(axis=0), float(halves[0] @ halves[1]) / lengths if lengths else 0.0)

    @property
    def visible(self) -> bool:
        """Whether the encoder sees one style, and not only chance."""
        return self.agreement >= AGREEING

    def share(self, base_ND: Array, lora_ND: Array) -> float:
        """How far along the way the LoRA goes from the base, pair by pair: mean <phi(lora) - phi(base), d> / <d, d>."""
        d = self.direction_D
        return float(((lora_ND - base_ND) @ d).mean() / (d @ d))


def style_transfer(base_ND: Array, lora_ND: Array, style: Style) -> Measure:
    """The share of the way to the training pictures' style, on prompts with the trigger."""
    name, meaning = "style_transfer", "0: like the base, 1: as different from it as the training pictures are"
    if not style.visible:
        return Measure(name, None, meaning, "the encoder sees no common style in the training pictures")
    return Measure(name, style.share(base_ND, lora_ND), meaning)


def trigger_response(base_ND: Array, lora_ND: Array, bare_base_ND: Array, bare_lora_ND: Array, style: Style) -> Measure:
    """1 - (style transfer without the trigger) / (style transfer with it)."""
    name, meaning = "trigger_response", "1: only with the trigger, 0: always on"
    gained = style.share(base_ND, lora_ND)
    if not style.visible or gained < VISIBLE:
        return Measure(name, None, meaning, "the LoRA changes too little to tell")
    return Measure(name, 1 - style.share(bare_base_ND, bare_lora_ND) / gained, meaning)


def prompt_adherence(base_ND: Array, lora_ND: Array, texts_ND: Array) -> Measure:
    """Mean cosine of picture and prompt with the LoRA, over the same for the base; row i belongs to text i."""
    base, lora = (float((x * texts_ND).sum(axis=1).mean()) for x in (base_ND, lora_ND))
    meaning = "1: shows what is asked as well as the base does"
    if base < VISIBLE:
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
