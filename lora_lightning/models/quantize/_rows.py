"""Weights of 8 bits, each row with a scale of its own.

Shapes: L rows (tokens), I inputs, O outputs.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RowScaled(nn.Linear):
    """A frozen linear of narrow weights (O, I) and their scales (O, 1) in fp32, which widens them for its product."""

    narrow: ClassVar[torch.dtype]
    scale: Tensor

    def __init__(self, linear: nn.Linear, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        weight, scale = rows(linear.weight.data.to(device), self.narrow)
        # As integers, whatever they mean: to weights of a floating-point type peft casts each new adapter.
        self.weight = nn.Parameter(weight.view(torch.int8), requires_grad=False)
        self.register_buffer("scale", scale)
        if linear.bias is not None:
            self.bias = nn.Parameter(linear.bias.data.to(device, dtype), requires_grad=False)
        self.dtype = dtype

    @property
    def narrowed(self) -> Tensor:
        """The weights in their own type."""
        return self.weight.data.view(self.narrow)

    def forward(self, x: Tensor) -> Tensor:
        """W x + bias in the dtype of the model."""
        return F.linear(x.to(self.dtype), widened(self.narrowed, self.scale, self.dtype), self.bias)


def replace(blocks: nn.Module, kind: type[RowScaled], device: torch.device, dtype: torch.dtype) -> None:
    """Make every plain linear inside `blocks` one of `kind`, in turn: the device never holds them all unquantised."""
    for module in list(blocks.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, kind(child, device, dtype))


def rows(x_LI: Tensor, narrow: torch.dtype) -> tuple[Tensor, Tensor]:
    """The matrix in `narrow`, each row scaled so that its largest value is the format's; and the scales (L, 1)."""
    exact = x_LI.float()
    largest = 127.0 if narrow == torch.int8 else torch.finfo(narrow).max
    scale_L1 = exact.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / largest
    scaled = (exact / scale_L1).clamp(-largest, largest)
    return (scaled.round() if narrow == torch.int8 else scaled).to(narrow), scale_L1


def widened(weight_OI: Tensor, scale_O1: Tensor, dtype: torch.dtype) -> Tensor:
    """What `rows` rounded, in `dtype`."""
    return (weight_OI.float() * scale_O1).to(dtype)
