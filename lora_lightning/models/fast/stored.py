"""The same stacks on a base that is stored in few bits and widened for each product: see `linears`."""

from collections.abc import Sequence
from typing import Any

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
from lora_lightning.models.fast.products import lowered, stored_gradients, stored_product
from lora_lightning.models.quantize._rows import RowScaled


class StoredLinears:
    """The stack of some int8 or nf4 linears; called with x_..I, it gives y_..O."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.layout, self.factors = layout_of(layers), factors_of(layers)
        bases: list[Any] = [base_of(layer) for layer in layers]
        self.bias_O = joined_bias(bases)
        self.stored = _stacked_rows(bases) if isinstance(bases[0], RowScaled) else _stacked_nf4(bases)
        self.a_RI = self.bias_O.new_zeros(self.layout.ranks, self.layout.inputs)
        self.b_OR = self.bias_O.new_zeros(self.layout.outputs, self.layout.ranks)

    def __call__(self, *parts: Tensor) -> Tensor:
        """W x + s B A x + bias, differentiable in x, A and B; x (..., I) in one or more parts."""
        flat = [part.flatten(0, -2) for part in parts]
        held = (*self.stored, self.bias_O, self.a_RI, self.b_OR)
        y: Tensor = _Stored.apply(len(parts), self.layout, *held, *flat, *self.factors)  # type: ignore[no-untyped-call]
        return unflattened(y, parts[0])

    @property
    def slots(self) -> list[Tensor]:
        """Where each of `factors` stands."""
        return factor_slots(self.layout, self.a_RI, self.b_OR)

    @property
    def frozen(self) -> list[Tensor]:
        """The weights with what widens them, and biases."""
        return [self.bias_O, *self.stored]


class _Stored(torch.autograd.Function):
    """y_LO of the parts of x_LI; gradients for these and for each A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        count: int,
        layout: Layout,
        numbers: Tensor,
        scales: Tensor,
        bias_O: Tensor,
        a_RI: Tensor,
        b_OR: Tensor,
        *rest: Tensor,
    ) -> Tensor:
        parts = rest[:count]
        h_LR = lowered(parts, a_RI)
        y_LO: Tensor = stored_product(parts, h_LR, (numbers, scales), b_OR, bias_O)
        ctx.save_for_backward(numbers, scales, a_RI, b_OR, h_LR, *parts)
        ctx.layout = layout
        return y_LO

    @staticmethod
    def backward(ctx: Any, dy_LO: Tensor) -> tuple[Tensor | None, ...]:
        numbers, scales, a_RI, b_OR, h_LR, *parts = ctx.saved_tensors
        *d_parts, da_RI, db_OR = stored_gradients(dy_LO, parts, h_LR, (numbers, scales), a_RI, b_OR)
        return *(None,) * 7, *d_parts, *ctx.layout.split(da_RI, db_OR)


def _stacked_rows(bases: Sequence[Any]) -> tuple[Tensor, ...]:
    weight_OI = torch.cat([base.weight.data for base in bases])
    scale_O1 = torch.cat([base.scale for base in bases])
    for base, rows, scale in zip(bases, *_split(bases, weight_OI, scale_O1), strict=True):
        base.weight.data, base.scale = rows, scale
    return weight_OI, scale_O1


def _stacked_nf4(bases: Sequence[Any]) -> tuple[Tensor, ...]:
    import bitsandbytes.functional as bnb

    packed, largest = [], []
    for base in bases:
        state = base.weight.quant_state
        scales = state.absmax
        if state.nested:
            scales = bnb.dequantize_blockwise(scales, state.state2) + state.offset
        packed.append(base.weight.data.view(base.out_features, -1))
        largest.append(scales.view(base.out_features, -1))
    packed_O = torch.cat(packed)
    for base, rows in zip(bases, _split(bases, packed_O)[0], strict=True):
        base.weight.data = rows.view(-1, 1)
    return packed_O, torch.cat(largest)


def _split(bases: Sequence[Any], *tensors: Tensor) -> list[Sequence[Tensor]]:
    counts = [base.out_features for base in bases]
    return [tensor.split(counts) for tensor in tensors]
