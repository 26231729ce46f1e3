"""8-bit integer storage of frozen linears, each output's weights with a scale of its own; widened for each product."""

import torch
from torch import nn

from lora_lightning.models.quantize._rows import RowScaled, replace


class Int8Linear(RowScaled):
    """For normally distributed weights an error of 0.8 %, a third of fp8's."""

    narrow = torch.int8


def quantize(blocks: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Replace every linear inside `blocks`."""
    replace(blocks, Int8Linear, device, dtype)
