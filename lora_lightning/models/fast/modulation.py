"""The modulation of all blocks at once.

A third of FLUX.1's parameters (3.2 of 11.9 billion) turn one vector a picture into every block's shifts, scales and
gates. No adapter stands before them, so they need no gradient; one product with all of them reads each weight once, at
the speed of memory.

Shapes: B batch, D features, N rows of all blocks' linears (6 D + 6 D for a double block, 3 D for a single one).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_lightning.models.quantize._rows import RowScaled, widened


class Modulation:
    """The stacked modulation linears; called with the embedding (B, D), it gives each one's vectors (count, B, 1, D).

    Of plain and of 8-bit linears the weights become views of the stack; others are asked one by one.
    """

    def __init__(self, linears: Sequence[nn.Linear], compiled: bool) -> None:
        self.linears, self.features = list(linears), linears[0].in_features
        self.rows = [linear.out_features for linear in linears]
        # Compiled, narrow weights are widened on their way into the product; else piece by piece.
        self._product = torch.compile(_widening_product, dynamic=False) if compiled else self._by_pieces
        self.stacked = type(linears[0]) is nn.Linear or isinstance(linears[0], RowScaled)
        if self.stacked:
            self._stack()

    def _stack(self) -> None:
        linears = self.linears
        self.weight_ND = linears[0].weight.new_empty(sum(self.rows), self.features)
        self.bias_N = torch.cat([linear.bias.data for linear in linears])
        self.scale_N1 = (
            torch.cat([linear.scale for linear in linears if isinstance(linear, RowScaled)])
            if isinstance(linears[0], RowScaled)
            else None
        )
        places = zip(linears, self.weight_ND.split(self.rows), self.bias_N.split(self.rows), strict=True)
        for linear, weight, bias in places:
            weight.copy_(linear.weight.data)
            linear.weight.data, linear.bias.data = weight, bias

    @torch.no_grad()
    def __call__(self, embedding_BD: Tensor) -> list[Tensor]:
        """Shift, scale, gate, ... of each linear."""
        vector_BD = F.silu(embedding_BD)
        if not self.stacked:
            out_BN = torch.cat([linear(vector_BD) for linear in self.linears], dim=-1)
        elif self.scale_N1 is None:
            out_BN = F.linear(vector_BD, self.weight_ND, self.bias_N)
        else:
            out_BN = self._product(vector_BD, self.weight_ND, self.scale_N1) + self.bias_N
        vectors = out_BN.unflatten(-1, (-1, self.features)).transpose(0, 1).unsqueeze(2).contiguous()
        return list(vectors.split([count // self.features for count in self.rows]))

    def _by_pieces(self, vector_BD: Tensor, weight_ND: Tensor, scale_N1: Tensor) -> Tensor:
        pieces = zip(weight_ND.split(self.rows), scale_N1.split(self.rows), strict=True)
        return torch.cat([F.linear(vector_BD, widened(*piece, vector_BD.dtype)) for piece in pieces], dim=-1)


def _widening_product(vector_BD: Tensor, weight_ND: Tensor, scale_N1: Tensor) -> Tensor:
    products = [(weight_ND.float() * vector_D.float()).sum(-1) for vector_D in vector_BD.unbind()]
    return (torch.stack(products) * scale_N1.view(1, -1)).to(vector_BD.dtype)
