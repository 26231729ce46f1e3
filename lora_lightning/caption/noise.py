"""Sampling that belongs to each row: a caption does not depend on what else is in its batch.

Shapes: B batch, V vocabulary, L tokens so far.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from lora_lightning.caption.base import Sampling


class RowNoise:
    """Turns taking the likeliest token into sampling, by the Gumbel-max trick.

    With g ~ Gumbel(0, 1), argmax_v (logit_v + g_v) is distributed as softmax(logit) (Maddison et al. 2014, A*
    Sampling, arXiv 1411.0030, section 2). Each row draws its g = -log(e), e ~ Exp(1), from a generator of its own,
    so that the same picture and seed give the same words in any batch, up to the rounding of the matrix products.

    Args:
        seeds: one a row.
        device: of the scores.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add each row's noise; `input_ids` is BL, `scores` is BV with -inf for what is ruled out."""
        noise_BV = torch.empty_like(scores)
        for row, generator in zip(noise_BV, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores - noise_BV.clamp_min_(torch.finfo(scores.dtype).tiny).log_()


def processors(sampling: Sampling, seeds: Sequence[int], device: torch.device) -> LogitsProcessorList:
    """What the scores pass through before the likeliest token is taken: nothing when the temperature is 0."""
    if sampling.temperature == 0:
        return LogitsProcessorList()
    steps: list[Callable[[Tensor, Tensor], Tensor]] = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    return LogitsProcessorList([*steps, RowNoise(seeds, device)])
