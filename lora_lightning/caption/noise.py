"""Sampling that belongs to each row: a caption does not depend on what else is in its batch.

Shapes: B batch, V vocabulary, L tokens so far.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from lora_lightning.caption.base import Request, Sampling


class RowNoise:
    """Turns taking the likeliest token into sampling, by the Gumbel-max trick.

    With g ~ Gumbel(0, 1), argmax_v (logit_v + g_v) is distributed as softmax(logit) (Maddison et al. 2014, A*
    Sampling, arXiv 1411.0030, section 2). Each row draws its g = -log(e), e ~ Exp(1), from a generator of its own,
    so that the same picture and seed give the same words in any batch, up to the rounding of the matrix products.

    Args:
        generators: one a row, on the device of the scores.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self._generators = generators

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add each row's noise; `input_ids` is BL, `scores` is BV with -inf for what is ruled out."""
        noise_BV = torch.empty_like(scores)
        for row, generator in zip(noise_BV, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores - noise_BV.clamp_min_(torch.finfo(scores.dtype).tiny).log_()


def generator(seed: int, device: torch.device) -> torch.Generator:
    """A row's own source of randomness."""
    return torch.Generator(device).manual_seed(seed)


def processors(sampling: Sampling, generators: Sequence[torch.Generator]) -> LogitsProcessorList:
    """What the scores pass through before the likeliest token is taken: nothing when the temperature is 0."""
    if sampling.temperature == 0:
        return LogitsProcessorList()
    steps: list[Callable[[Tensor, Tensor], Tensor]] = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    return LogitsProcessorList([*steps, RowNoise(generators)])


@dataclass(frozen=True)
class Chooser:
    """How the words of one row are chosen."""

    sampling: Sampling
    generator: torch.Generator

    @classmethod
    def of(cls, request: Request, device: torch.device) -> "Chooser":
        """As a request says."""
        return cls(request.sampling, generator(request.seed, device))


def choose(logits_BV: Tensor, rows: Mapping[int, Chooser]) -> Tensor:
    """The next token of each row (B): rows that nobody chooses for get their likeliest."""
    scores_BV = logits_BV.float()
    by_sampling: dict[tuple[float, float], list[int]] = {}
    for row, chooser in sorted(rows.items()):
        by_sampling.setdefault((chooser.sampling.temperature, chooser.sampling.top_p), []).append(row)
    for (temperature, top_p), members in by_sampling.items():
        steps = processors(Sampling(temperature, top_p), [rows[row].generator for row in members])
        if len(members) == len(scores_BV):
            scores_BV = steps(None, scores_BV)
        elif steps:
            scores_BV[members] = steps(None, scores_BV[members])
    return scores_BV.argmax(dim=-1)
