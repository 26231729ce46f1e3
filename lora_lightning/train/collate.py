"""Samples of one shape as one batch.

Shapes: B batch, C latent channels, H W latent rows and columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lora_lightning.models.base import TextEmbedding
from lora_lightning.train.module import Batch


def joined(samples: Sequence[Batch]) -> Batch:
    """Samples of one shape as one batch."""
    if len(samples) == 1:
        return samples[0]
    masked = any(sample.mask_B1HW is not None for sample in samples)
    weights = [sample.weight_B for sample in samples if sample.weight_B is not None]
    references = [sample.reference_BCHW for sample in samples if sample.reference_BCHW is not None]
    neutral = [sample.neutral for sample in samples if sample.neutral is not None]
    return Batch(
        torch.cat([sample.x0_BCHW for sample in samples]),
        torch.cat([sample.noise_BCHW for sample in samples]),
        torch.cat([sample.sigma_B for sample in samples]),
        _joined_texts([sample.text for sample in samples]),
        mask_B1HW=torch.cat([_mask(sample) for sample in samples]) if masked else None,
        weight_B=torch.cat(weights) if weights else None,
        neutral=_joined_texts(neutral) if neutral else None,
        reference_BCHW=torch.cat(references) if references else None,
    )


def _joined_texts(texts: Sequence[TextEmbedding]) -> TextEmbedding:
    sequences, pooled = zip(*texts, strict=True)
    return TextEmbedding(torch.cat(sequences), torch.cat(pooled))


def _mask(sample: Batch) -> Tensor:
    """A sample's mask; a picture without one is learned whole."""
    return torch.ones_like(sample.x0_BCHW[:, :1]) if sample.mask_B1HW is None else sample.mask_B1HW
