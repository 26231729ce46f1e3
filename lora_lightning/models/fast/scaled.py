"""The same stacks on a base in fp8: see `linears`, whose shapes these are.

Both products with the base run in fp8, forward and for the gradient of x; the adapters stay in the model's dtype, and
so does everything that their gradients are made of. The gradient's product needs the weights transposed: kept beside
the others where memory allows, else made anew in every step.
"""

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor, nn

from lora_lightning.models.fast.linears import (
    Layout,
    base_of,
    factor_slots,
    factors_of,
    joined_bias,
    layout_of,
    unflattened,
)
from lora_lightning.models.fast.products import lowered
from lora_lightning.models.fast.transpose import transposed
from lora_lightning.models.quantize import fp8
from lora_lightning.models.quantize._rows import rows
from lora_lightning.models.quantize.fp8 import Fp8Linear


class ScaledLinears:
    """The stack of some fp8 linears; called with x_..I, it gives y_..O."""

    def __init__(self, layers: Sequence[nn.Module], keep_transposed: bool) -> None:
        self.layout, self.factors = layout_of(layers), factors_of(layers)
        bases: list[Any] = [base_of(layer) for layer in layers]
        self.weight_OI = torch.cat([base.weight.data for base in bases]).view(Fp8Linear.narrow)
        self.scale_O1 = torch.cat([base.scale for base in bases])
        self.bias_O = joined_bias(bases)
        row = 0
        for base in bases:
            place = slice(row, row + base.out_features)
            base.weight.data, base.scale = self.weight_OI[place].view(torch.int8), self.scale_O1[place]
            row += base.out_features
        self.transposed_IO = self.weight_OI.t().contiguous() if keep_transposed else None
        self.a_RI = self.bias_O.new_zeros(self.layout.ranks, self.layout.inputs)
        self.b_OR = self.bias_O.new_zeros(self.layout.outputs, self.layout.ranks)

    def __call__(self, *parts: Tensor) -> Tensor:
        """W x + s B A x + bias, differentiable in x, A and B; x (..., I) in one or more parts."""
        flat = [part.flatten(0, -2) for part in parts]
        base = (self.weight_OI, self.scale_O1, self.bias_O, self.transposed_IO)
        y: Tensor = _Scaled.apply(len(parts), self.layout, *base, self.a_RI, self.b_OR, *flat, *self.factors)  # type: ignore[no-untyped-call]
        return unflattened(y, parts[0])

    @property
    def slots(self) -> list[Tensor]:
        """Where each of `factors` stands."""
        return factor_slots(self.layout, self.a_RI, self.b_OR)

    @property
    def frozen(self) -> list[Tensor]:
        """The weights with their scales and biases."""
        held = (self.weight_OI, self.scale_O1, self.bias_O, self.transposed_IO)
        return [tensor for tensor in held if tensor is not None]


class _Scaled(torch.autograd.Function):
    """y_LO of the parts of x_LI; gradients for these and for each A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        count: int,
        layout: Layout,
        weight_OI: Tensor,
        scale_O1: Tensor,
        bias_O: Tensor,
        transposed_IO: Tensor | None,
        a_RI: Tensor,
        b_OR: Tensor,
        *rest: Tensor,
    ) -> Tensor:
        parts = rest[:count]
        x_LI = torch.cat(parts, dim=1) if count > 1 else parts[0]
        h_LR = lowered(parts, a_RI)
        ctx.save_for_backward(h_LR, weight_OI, scale_O1, transposed_IO, a_RI, b_OR, *parts)
        ctx.layout = layout
        rounded_LI, scale_L1 = rows(x_LI, weight_OI.dtype)
        y_LO: Tensor = scaled_product(rounded_LI, scale_L1, weight_OI, scale_O1, bias_O, h_LR, b_OR)
        return y_LO

    @staticmethod
    def backward(ctx: Any, dy_LO: Tensor) -> tuple[Tensor | None, ...]:
        h_LR, weight_OI, scale_O1, transposed_IO, a_RI, b_OR, *parts = ctx.saved_tensors
        dh_LR = dy_LO @ b_OR
        # The weights' scales belong to the summed index here: they go into dy before it is rounded.
        rounded_LO, scale_L1 = rows(dy_LO.float() * scale_O1.t(), weight_OI.dtype)
        if transposed_IO is None:
            transposed_IO = transposed(weight_OI.view(torch.uint8)).view(weight_OI.dtype)
        ones_I1 = scale_O1.new_ones(weight_OI.shape[1], 1)
        dx_LI = scaled_product(rounded_LO, scale_L1, transposed_IO, ones_I1, None, dh_LR, a_RI.t())
        d_parts = dx_LI.split([part.shape[1] for part in parts], dim=1)
        da_RI = torch.cat([dh_LR.t() @ part for part in parts], dim=1)
        return *(None,) * 8, *d_parts, *ctx.layout.split(da_RI, dy_LO.t() @ h_LR)


@torch.library.custom_op("lora_lightning::scaled_product", mutates_args=())
def scaled_product(
    x_LI: Tensor,
    x_scale_L1: Tensor,
    weight_OI: Tensor,
    weight_scale_O1: Tensor,
    bias_O: Optional[Tensor],  # noqa: UP045 - torch 2.11 reads the schema from it
    h_LR: Tensor,
    b_OR: Tensor,
) -> Tensor:
    """The sum x W^T + bias + h b^T; one operation, so that the compiler leaves the second addition in place."""
    y_LO = fp8.product(x_LI, x_scale_L1, weight_OI, weight_scale_O1, bias_O, h_LR.dtype)
    return y_LO.addmm_(h_LR, b_OR.t()) if h_LR.shape[1] else y_LO


@scaled_product.register_fake
def _(
    x_LI: Tensor,
    x_scale_L1: Tensor,
    weight_OI: Tensor,
    weight_scale_O1: Tensor,
    bias_O: Tensor | None,
    h_LR: Tensor,
    b_OR: Tensor,
) -> Tensor:
    return h_LR.new_empty(x_LI.shape[0], weight_OI.shape[0])
