"""The products of a stack and their gradients, as single operations: see `linears` for the equations.

To the compiler each is one step, so additions stay in place, and a stored base is widened and let go inside it.

Shapes: L tokens (of all pictures of a batch), I and O inputs and outputs of the stack, R ranks of all its adapters.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

NF4_BLOCK = 64


@torch.library.custom_op("lora_lightning::lowered", mutates_args=())
def lowered(parts: Sequence[Tensor], a_RI: Tensor) -> Tensor:
    """H = A x, of x in parts."""
    columns = _columns(parts)
    h_LR = parts[0] @ a_RI[:, columns[0]].t()
    for part, place in zip(parts[1:], columns[1:], strict=True):
        h_LR.addmm_(part, a_RI[:, place].t())
    return h_LR


@lowered.register_fake
def _(parts: Sequence[Tensor], a_RI: Tensor) -> Tensor:
    return parts[0].new_empty(parts[0].shape[0], a_RI.shape[0])


@torch.library.custom_op("lora_lightning::stacked_product", mutates_args=())
def stacked_product(parts: Sequence[Tensor], h_LR: Tensor, matrix: Tensor, bias_O: Tensor) -> Tensor:
    """Y by M = [[W, s B], [A, 0]]: at once where y is wide, else with the adapters' share added to it."""
    o = bias_O.shape[0]
    i = matrix.shape[1] - h_LR.shape[1]
    if len(parts) == 1 and o > i:
        return torch.addmm(bias_O, torch.cat((parts[0], h_LR), dim=1), matrix[:o].t())
    return _product(parts, h_LR, matrix[:o, :i], matrix[:o, i:], bias_O)


@stacked_product.register_fake
def _(parts: Sequence[Tensor], h_LR: Tensor, matrix: Tensor, bias_O: Tensor) -> Tensor:
    return h_LR.new_empty(h_LR.shape[0], bias_O.shape[0])


@torch.library.custom_op("lora_lightning::stacked_gradients", mutates_args=())
def stacked_gradients(dy_LO: Tensor, parts: Sequence[Tensor], h_LR: Tensor, matrix: Tensor) -> list[Tensor]:
    """The gradients of each part of x, then dA (R x I) and dB (O x R)."""
    o = dy_LO.shape[1]
    i = matrix.shape[1] - h_LR.shape[1]
    if o >= i:
        return _gradients(dy_LO, parts, h_LR, matrix[:o, :i], matrix[o:, :i], matrix[:o, i:])
    dh_LR = dy_LO @ matrix[:o, i:]
    joined = torch.cat((dy_LO, dh_LR), dim=1)
    return [*(joined @ matrix[:, place] for place in _columns(parts)), *_of_factors(dy_LO, dh_LR, parts, h_LR)]


@torch.library.custom_op("lora_lightning::stored_product", mutates_args=())
def stored_product(
    parts: Sequence[Tensor], h_LR: Tensor, stored: Sequence[Tensor], b_OR: Tensor, bias_O: Tensor
) -> Tensor:
    """Y on a stored base."""
    return _product(parts, h_LR, widened(stored, h_LR.dtype), b_OR, bias_O)


@stored_product.register_fake
def _(parts: Sequence[Tensor], h_LR: Tensor, stored: Sequence[Tensor], b_OR: Tensor, bias_O: Tensor) -> Tensor:
    return h_LR.new_empty(h_LR.shape[0], bias_O.shape[0])


@torch.library.custom_op("lora_lightning::stored_gradients", mutates_args=())
def stored_gradients(
    dy_LO: Tensor, parts: Sequence[Tensor], h_LR: Tensor, stored: Sequence[Tensor], a_RI: Tensor, b_OR: Tensor
) -> list[Tensor]:
    """The same as of `stacked_gradients` on a stored base."""
    return _gradients(dy_LO, parts, h_LR, widened(stored, h_LR.dtype), a_RI, b_OR)


@stacked_gradients.register_fake
def _(dy_LO: Tensor, parts: Sequence[Tensor], h_LR: Tensor, matrix: Tensor) -> list[Tensor]:
    return _like_gradients(dy_LO, parts, h_LR)


@stored_gradients.register_fake
def _(
    dy_LO: Tensor, parts: Sequence[Tensor], h_LR: Tensor, stored: Sequence[Tensor], a_RI: Tensor, b_OR: Tensor
) -> list[Tensor]:
    return _like_gradients(dy_LO, parts, h_LR)


def widened(stored: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """The weights (O, I) of a stored base."""
    numbers, scales = stored
    if numbers.dtype is torch.int8:
        return torch.mul(numbers, scales, out=torch.empty_like(numbers, dtype=dtype))
    import bitsandbytes  # noqa: F401 - brings the operation

    shape = (numbers.shape[0], 2 * numbers.shape[1])
    weight_OI: Tensor = torch.ops.bitsandbytes.dequantize_4bit(numbers, scales, NF4_BLOCK, "nf4", shape, dtype)
    return weight_OI


def _product(parts: Sequence[Tensor], h_LR: Tensor, weight_OI: Tensor, b_OR: Tensor, bias_O: Tensor) -> Tensor:
    columns = _columns(parts)
    y_LO = torch.addmm(bias_O, parts[0], weight_OI[:, columns[0]].t())
    for part, place in zip(parts[1:], columns[1:], strict=True):
        y_LO.addmm_(part, weight_OI[:, place].t())
    return y_LO.addmm_(h_LR, b_OR.t()) if h_LR.shape[1] else y_LO


def _gradients(
    dy_LO: Tensor, parts: Sequence[Tensor], h_LR: Tensor, weight_OI: Tensor, a_RI: Tensor, b_OR: Tensor
) -> list[Tensor]:
    dh_LR = dy_LO @ b_OR
    gradients = [dy_LO @ weight_OI[:, place] for place in _columns(parts)]
    for gradient, place in zip(gradients, _columns(parts), strict=True):
        gradient.addmm_(dh_LR, a_RI[:, place])
    return [*gradients, *_of_factors(dy_LO, dh_LR, parts, h_LR)]


def _of_factors(dy_LO: Tensor, dh_LR: Tensor, parts: Sequence[Tensor], h_LR: Tensor) -> list[Tensor]:
    of_a = [dh_LR.t() @ part for part in parts]
    return [torch.cat(of_a, dim=1) if len(of_a) > 1 else of_a[0], dy_LO.t() @ h_LR]


def _like_gradients(dy_LO: Tensor, parts: Sequence[Tensor], h_LR: Tensor) -> list[Tensor]:
    o, r, i = dy_LO.shape[1], h_LR.shape[1], sum(part.shape[1] for part in parts)
    gradients = [dy_LO.new_empty(part.shape) for part in parts]
    return [*gradients, dy_LO.new_empty(r, i), dy_LO.new_empty(o, r)]


def _columns(parts: Sequence[Tensor]) -> list[slice]:
    """The columns of the weights that each part meets."""
    places, start = [], 0
    for part in parts:
        places.append(slice(start, start + part.shape[1]))
        start += part.shape[1]
    return places
