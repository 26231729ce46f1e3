"""Differential output preservation: where a caption does not call for what is learned, the base stays as it is.

Method: ostris/ai-toolkit, `diff_output_preservation` (2025). Shapes: B batch, C latent channels, H W rows and columns.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from diffusers import ModelMixin
from torch import Tensor

from lora_lightning.models import lora
from lora_lightning.models.base import Family, TextEmbedding


def departure(
    family: Family,
    transformer: ModelMixin,
    x_BCHW: Tensor,
    sigma_B: Tensor,
    text: TextEmbedding,
    reference_BCHW: Tensor | None = None,
) -> Tensor:
    """How far the adapter moves the velocity of the base: mean |v(x, sigma, text) - v_base(x, sigma, text)|^2."""
    seen = (x_BCHW, sigma_B, text, reference_BCHW)
    with torch.no_grad(), base_alone(transformer):
        base_BCHW = family.velocity(transformer, *seen).float()
    return F.mse_loss(family.velocity(transformer, *seen).float(), base_BCHW)


@contextmanager
def base_alone(transformer: ModelMixin) -> Iterator[None]:
    """The transformer without what is being trained; afterwards that is as it was, its gradients included.

    peft's own switches also set which weights want gradients, those of a frozen helper too.
    """
    layers = [layer for _, layer in lora.adapted(transformer)]
    active = [list(layer.active_adapters) for layer in layers]
    try:
        for layer, names in zip(layers, active, strict=True):
            layer._active_adapter = [name for name in names if name != lora.TRAINED]
        yield
    finally:
        for layer, names in zip(layers, active, strict=True):
            layer._active_adapter = names
