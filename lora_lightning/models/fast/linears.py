"""Adapted linears that read the same input, as one matrix product with the adapters inside it.

peft computes W x + (alpha / rank) B (A x) by four products, casts and additions for every linear: at rank 16 these cost
15 % of a step for 1 % of its arithmetic. Here the linears q, k, v, ... of one input are stacked, and their adapters
widen the base's own matrix. With M = [[W, s B], [A, 0]], W the weights one above the other, A all A's one above the
other, B block-diagonal and s = alpha / rank:

    forward     h = A x,           y = [W, s B] [x; h] + bias
    backward    dh = (s B)^T dy,   dx = [W; A]^T [dy; dh]
                dA = dh x^T,       dB = s dy h^T                    (of dB only the diagonal blocks)

Where the result is smaller than what it is made of, the adapter's share is added to it in place instead. An input may
come in parts that would have to be joined first: each is multiplied by its own columns of the weights.

M is the only copy of W in memory: the weights of the modules become views of it, so everything else that uses the
modules (drawing, saving, another adapter) sees what it saw before. The trained A and B stay in fp32 where they are;
`refresh` copies them into M.

Shapes: L tokens (of all pictures of a batch), I and O inputs and outputs of the stack, R ranks of all its adapters.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from lora_lightning.models.fast.products import lowered, stacked_gradients, stacked_product
from lora_lightning.models.lora import TRAINED


class Block(NamedTuple):
    """Where one adapter stands: its rows of A (columns of B), its rows of B, and its scale."""

    rank_from: int
    rank_to: int
    output_from: int
    output_to: int
    scale: float


class Layout(NamedTuple):
    """The shape of a stack."""

    inputs: int
    outputs: int
    blocks: tuple[Block, ...]

    @property
    def ranks(self) -> int:
        """R."""
        return self.blocks[-1].rank_to if self.blocks else 0

    def split(self, da_RI: Tensor, db_OR: Tensor) -> tuple[Tensor, ...]:
        """The gradients of each A and B, in fp32, from those of the whole stack."""
        gradients = []
        for block in self.blocks:
            ranks = slice(block.rank_from, block.rank_to)
            gradients.append(da_RI[ranks].float())
            db = db_OR[block.output_from : block.output_to, ranks].float()
            gradients.append(db if block.scale == 1 else db * block.scale)
        return tuple(gradients)


def base_of(layer: nn.Module) -> Any:
    """The frozen linear inside an adapted one, or the linear itself."""
    return layer.base_layer if isinstance(layer, LoraLayer) else layer


def unflattened(y_LO: Tensor, like: Tensor) -> Tensor:
    """Back to the leading dimensions of what was flattened."""
    return y_LO.view(*like.shape[:-1], y_LO.shape[-1])


def layout_of(layers: Sequence[nn.Module]) -> Layout:
    """How the trained adapters of these linears stand in one stack."""
    blocks, outputs, ranks = [], 0, 0
    for layer in layers:
        base = base_of(layer)
        if isinstance(layer, LoraLayer) and TRAINED in layer.lora_A:
            rank = layer.r[TRAINED]
            blocks.append(Block(ranks, ranks + rank, outputs, outputs + base.out_features, layer.scaling[TRAINED]))
            ranks += rank
        outputs += base.out_features
    return Layout(base_of(layers[0]).in_features, outputs, tuple(blocks))


def factor_slots(layout: Layout, a_RI: Tensor, b_OR: Tensor) -> list[Tensor]:
    """Where each of `factors_of` stands in the stacked A and B.

    As data: a second forward pass of a step copies the same values again, which autograd must not take for a change.
    """
    a_RI, b_OR = a_RI.data, b_OR.data
    places = list[Tensor]()
    for block in layout.blocks:
        ranks = slice(block.rank_from, block.rank_to)
        places += [a_RI[ranks], b_OR[block.output_from : block.output_to, ranks]]
    return places


def factors_of(layers: Sequence[nn.Module]) -> tuple[nn.Parameter, ...]:
    """A and B of each adapted linear, in the order of `Layout.blocks`."""
    factors: list[nn.Parameter] = []
    for layer in layers:
        if isinstance(layer, LoraLayer) and TRAINED in layer.lora_A:
            factors += [layer.lora_A[TRAINED].weight, layer.lora_B[TRAINED].weight]
    return tuple(factors)


class Stack(Protocol):
    """Linears of one input with their adapters."""

    layout: Layout
    factors: tuple[nn.Parameter, ...]

    def __call__(self, *parts: Tensor) -> Tensor:
        """W x + s B A x + bias, differentiable in x, A and B; x (..., I) in one or more parts."""

    @property
    def slots(self) -> list[Tensor]:
        """Where copies of `factors` stand that the products read."""

    @property
    def frozen(self) -> list[Tensor]:
        """What holds the base's weights and nothing else."""


class Linears:
    """The stack of some plain linears; called with x_..I, it gives y_..O."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.layout, self.factors = layout_of(layers), factors_of(layers)
        bases = [base_of(layer) for layer in layers]
        weight = bases[0].weight
        self.matrix = weight.new_zeros(self.layout.outputs + self.layout.ranks, self.layout.inputs + self.layout.ranks)
        self.bias = joined_bias(bases)
        row = 0
        for base in bases:
            rows = slice(row, row + base.out_features)
            self.matrix[rows, : self.layout.inputs] = base.weight.data
            base.weight.data = self.matrix[rows, : self.layout.inputs]
            row += base.out_features

    def __call__(self, *parts: Tensor) -> Tensor:
        """W x + s B A x + bias, differentiable in x, A and B; x (..., I) in one or more parts."""
        flat = [part.flatten(0, -2) for part in parts]
        y: Tensor = _Augmented.apply(len(parts), self.layout, self.matrix, self.bias, *flat, *self.factors)  # type: ignore[no-untyped-call]
        return unflattened(y, parts[0])

    @property
    def slots(self) -> list[Tensor]:
        """Where each of `factors` stands in the matrix."""
        i, o = self.layout.inputs, self.layout.outputs
        return factor_slots(self.layout, self.matrix[o:, :i], self.matrix[:o, i:])

    @property
    def frozen(self) -> list[Tensor]:
        """Nothing: the adapters stand between the weights."""
        return []


@torch.no_grad()
def refresh(stacks: Sequence["Stack"]) -> None:
    """Copy all trained adapters into their matrices, scaled; to be done whenever they have changed."""
    slots = [slot for stack in stacks for slot in stack.slots]
    factors: list[Tensor] = [factor for stack in stacks for factor in stack.factors]
    scales = [scale for stack in stacks for block in stack.layout.blocks for scale in (1.0, block.scale)]
    if not slots:
        return
    if any(scale != 1 for scale in scales):
        factors = list(torch._foreach_mul(factors, scales))
    torch._foreach_copy_(slots, factors)


class _Augmented(torch.autograd.Function):
    """y_LO of the parts of x_LI; gradients for these and for each A and B."""

    @staticmethod
    def forward(ctx: Any, count: int, layout: Layout, matrix: Tensor, bias_O: Tensor, *rest: Tensor) -> Tensor:
        parts = rest[:count]
        h_LR = lowered(parts, matrix[layout.outputs :, : layout.inputs])
        y_LO: Tensor = stacked_product(parts, h_LR, matrix, bias_O)
        ctx.save_for_backward(matrix, h_LR, *parts)
        ctx.layout = layout
        return y_LO

    @staticmethod
    def backward(ctx: Any, dy_LO: Tensor) -> tuple[Tensor | None, ...]:
        matrix, h_LR, *parts = ctx.saved_tensors
        *d_parts, da_RI, db_OR = stacked_gradients(dy_LO, parts, h_LR, matrix)
        return None, None, None, None, *d_parts, *ctx.layout.split(da_RI, db_OR)


def joined_bias(bases: Sequence[Any]) -> Tensor:
    """The biases as one vector, of which the modules' own become views; zeros where there is none."""
    dtype = next((base.bias.dtype for base in bases if base.bias is not None), bases[0].weight.dtype)
    empty = (bases[0].weight.new_zeros(base.out_features, dtype=dtype) for base in bases)
    joined = torch.cat([none if base.bias is None else base.bias.data for none, base in zip(empty, bases, strict=True)])
    start = 0
    for base in bases:
        if base.bias is not None:
            base.bias.data = joined[start : start + base.out_features]
        start += base.out_features
    return joined
