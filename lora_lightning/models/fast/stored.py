"""The same stacks on a base that is stored in few bits and widened for each product: see `linears`.

The widened weights are written straight into the matrix of `linears` and let go after the product.
"""

from collections.abc import Callable, Sequence
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
from lora_lightning.models.fast.products import differentiate, multiply
from lora_lightning.models.quantize._rows import RowScaled, widened

NF4_BLOCK = 64


class StoredLinears:
    """The stack of some int8 or nf4 linears; called with x_..I, it gives y_..O."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.layout, self.factors = layout_of(layers), factors_of(layers)
        bases: list[Any] = [base_of(layer) for layer in layers]
        self.bias_O = joined_bias(bases)
        self.kind = "rows" if isinstance(bases[0], RowScaled) else "nf4"
        self.stored = _stacked_rows(bases) if self.kind == "rows" else _stacked_nf4(bases)
        self.a_RI = self.bias_O.new_zeros(self.layout.ranks, self.layout.inputs)
        self.b_OR = self.bias_O.new_zeros(self.layout.outputs, self.layout.ranks)

    def __call__(self, *parts: Tensor) -> Tensor:
        """W x + s B A x + bias, differentiable in x, A and B; x (..., I) in one or more parts."""
        flat = [part.flatten(0, -2) for part in parts]
        counts = (len(parts), len(self.stored))
        held = (self.bias_O, self.a_RI, self.b_OR, *self.stored)
        y: Tensor = _Stored.apply(counts, self.layout, self.kind, *held, *flat, *self.factors)  # type: ignore[no-untyped-call]
        return unflattened(y, parts[0])

    @property
    def slots(self) -> list[Tensor]:
        """Where each of `factors` stands."""
        return factor_slots(self.layout, self.a_RI, self.b_OR)


class _Stored(torch.autograd.Function):
    """y_LO of the parts of x_LI; gradients for these and for each A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        counts: tuple[int, int],
        layout: Layout,
        kind: str,
        bias_O: Tensor,
        a: Tensor,
        b: Tensor,
        *rest: Tensor,
    ) -> Tensor:
        stored, parts = rest[: counts[1]], rest[counts[1] : counts[1] + counts[0]]
        y_LO: Tensor
        y_LO, h_LR = multiply(parts, _matrix(kind, a, b, stored), bias_O)
        ctx.save_for_backward(a, b, h_LR, *stored, *parts)
        ctx.layout, ctx.kind, ctx.counts = layout, kind, counts
        return y_LO

    @staticmethod
    def backward(ctx: Any, dy_LO: Tensor) -> tuple[Tensor | None, ...]:
        a, b, h_LR, *rest = ctx.saved_tensors
        stored, parts = rest[: ctx.counts[1]], rest[ctx.counts[1] :]
        *d_parts, da_RI, db_OR = differentiate(dy_LO, parts, h_LR, _matrix(ctx.kind, a, b, stored))
        none = (None,) * (6 + ctx.counts[1])
        return *none, *d_parts, *ctx.layout.split(da_RI, db_OR)


def _matrix(kind: str, a_RI: Tensor, b_OR: Tensor, stored: Sequence[Tensor]) -> Tensor:
    """[[W, B], [A, 0]]."""
    widen: Callable[..., Tensor] = widened if kind == "rows" else nf4_widened
    weight_OI = widen(*stored, dtype=a_RI.dtype)
    corner_RR = a_RI.new_zeros(a_RI.shape[0], a_RI.shape[0])
    return torch.cat((torch.cat((weight_OI, b_OR), dim=1), torch.cat((a_RI, corner_RR), dim=1)))


def nf4_widened(packed_O: Tensor, largest_O: Tensor, code_16: Tensor, dtype: torch.dtype) -> Tensor:
    """The weights (O, I) that bitsandbytes packed: two a byte (O, I / 2), with the largest of each 64 (O, I / 64)."""
    numbers = torch.stack((packed_O >> 4, packed_O & 15), dim=-1).flatten(1).int()
    weight_OI: Tensor = (code_16[numbers].unflatten(1, (-1, NF4_BLOCK)) * largest_O[..., None]).flatten(1).to(dtype)
    return weight_OI


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
    return packed_O, torch.cat(largest), bases[0].weight.quant_state.code


def _split(bases: Sequence[Any], *tensors: Tensor) -> list[Sequence[Tensor]]:
    counts = [base.out_features for base in bases]
    return [tensor.split(counts) for tensor in tensors]
