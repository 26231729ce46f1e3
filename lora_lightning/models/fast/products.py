"""The products of a stack with M = [[W, s B], [A, 0]] and their gradients: see `linears` for the equations.

Shapes: L tokens (of all pictures of a batch), I and O inputs and outputs of the stack, R ranks of all its adapters.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def multiply(parts: Sequence[Tensor], matrix: Tensor, bias_O: Tensor) -> list[Tensor]:
    """The result y (L x O), and h (L x R)."""
    if torch.compiler.is_compiling():
        compiled: list[Tensor] = stacked_product(parts, matrix, bias_O)
        return compiled
    return _multiply(parts, matrix, bias_O)


def differentiate(dy_LO: Tensor, parts: Sequence[Tensor], h_LR: Tensor, matrix: Tensor) -> list[Tensor]:
    """The gradients of each part of x, then dA (R x I) and dB (O x R)."""
    if torch.compiler.is_compiling():
        compiled: list[Tensor] = stacked_gradients(dy_LO, parts, h_LR, matrix)
        return compiled
    return _differentiate(dy_LO, parts, h_LR, matrix)


def _multiply(parts: Sequence[Tensor], matrix: Tensor, bias_O: Tensor) -> list[Tensor]:
    o = bias_O.shape[0]
    i, r = sum(part.shape[1] for part in parts), matrix.shape[0] - o
    if len(parts) == 1 and o > i:
        joined = parts[0].new_empty(parts[0].shape[0], i + r)
        joined[:, :i] = parts[0]
        h_LR = parts[0] @ matrix[o:, :i].t()
        joined[:, i:] = h_LR
        return [torch.addmm(bias_O, joined, matrix[:o].t()), h_LR]
    columns = _columns(parts)
    y_LO = torch.addmm(bias_O, parts[0], matrix[:o, columns[0]].t())
    h_LR = parts[0] @ matrix[o:, columns[0]].t()
    for part, place in zip(parts[1:], columns[1:], strict=True):
        y_LO.addmm_(part, matrix[:o, place].t())
        h_LR.addmm_(part, matrix[o:, place].t())
    return [y_LO.addmm_(h_LR, matrix[:o, i:].t()) if r else y_LO, h_LR]


def _differentiate(dy_LO: Tensor, parts: Sequence[Tensor], h_LR: Tensor, matrix: Tensor) -> list[Tensor]:
    o, i = dy_LO.shape[1], sum(part.shape[1] for part in parts)
    dh_LR = dy_LO @ matrix[:o, i:]
    if o < i:
        joined = torch.cat((dy_LO, dh_LR), dim=1)
        gradients = [joined @ matrix[:, place] for place in _columns(parts)]
    else:
        gradients = [dy_LO @ matrix[:o, place] for place in _columns(parts)]
        for gradient, place in zip(gradients, _columns(parts), strict=True):
            gradient.addmm_(dh_LR, matrix[o:, place])
    da_RI = torch.cat([dh_LR.t() @ part for part in parts], dim=1) if len(parts) > 1 else dh_LR.t() @ parts[0]
    return [*gradients, da_RI, dy_LO.t() @ h_LR]


# Single operations to the compiler, which would copy what they add to in place.
stacked_product = torch.library.custom_op("lora_lightning::stacked_product", _multiply, mutates_args=())
stacked_gradients = torch.library.custom_op("lora_lightning::stacked_gradients", _differentiate, mutates_args=())


@stacked_product.register_fake
def _(parts: Sequence[Tensor], matrix: Tensor, bias_O: Tensor) -> list[Tensor]:
    tokens, o = parts[0].shape[0], bias_O.shape[0]
    return [parts[0].new_empty(tokens, o), parts[0].new_empty(tokens, matrix.shape[0] - o)]


@stacked_gradients.register_fake
def _(dy_LO: Tensor, parts: Sequence[Tensor], h_LR: Tensor, matrix: Tensor) -> list[Tensor]:
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
