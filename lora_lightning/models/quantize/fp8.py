"""8-bit floating point (e4m3) storage and arithmetic of frozen linears, each output's weights with a scale of its own.

The formats: Micikevicius et al. 2022 (arXiv 2209.05433). Cards from Ada and Hopper on multiply them at twice the rate
of bf16; elsewhere the weights are widened before the product.

Shapes: L rows (tokens), I inputs, O outputs.
"""

import torch
import torch.nn.functional as F
from diffusers.models.normalization import AdaLayerNormZero, AdaLayerNormZeroSingle
from torch import Tensor, nn

from lora_lightning.models.quantize._rows import RowScaled, replace, rows, widened
from lora_lightning.models.quantize.int8 import Int8Linear


class Fp8Linear(RowScaled):
    """A frozen linear of e4m3 weights (O, I) and their scales (O, 1)."""

    narrow = torch.float8_e4m3fn

    def forward(self, x: Tensor) -> Tensor:
        """W x + bias, x rounded likewise where the device multiplies fp8 and no gradient is asked for."""
        if torch.is_grad_enabled() or not multiplies(x.device):
            return super().forward(x)
        flat = x.to(self.dtype).flatten(0, -2)
        y = product(*rows(flat, self.narrow), self.narrowed, self.scale, self.bias, self.dtype)
        unflattened: Tensor = y.unflatten(0, x.shape[:-1])
        return unflattened


def quantize(blocks: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Replace every linear inside `blocks`; those of the modulation, which see one vector, are integers instead."""
    for module in blocks.modules():
        if isinstance(module, AdaLayerNormZero | AdaLayerNormZeroSingle):
            replace(module, Int8Linear, device, dtype)
    replace(blocks, Fp8Linear, device, dtype)


def multiplies(device: torch.device) -> bool:
    """Whether the device multiplies fp8 itself."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def product(
    x_LI: Tensor,
    x_scale_L1: Tensor,
    weight_OI: Tensor,
    weight_scale_O1: Tensor,
    bias_O: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """The product x W^T + bias of two matrices that `rows` made."""
    if multiplies(x_LI.device):
        return torch._scaled_mm(
            x_LI,
            weight_OI.t(),
            scale_a=x_scale_L1,
            scale_b=weight_scale_O1.t(),
            bias=bias_O,
            out_dtype=dtype,
            use_fast_accum=True,
        )
    return F.linear(widened(x_LI, x_scale_L1, dtype), widened(weight_OI, weight_scale_O1, dtype), bias_O)
