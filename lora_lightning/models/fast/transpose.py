"""A matrix of bytes transposed at the speed of memory.

torch's own copy of a transposed view goes byte by byte.
"""

import torch
from torch import Tensor

TILE = 128


@torch.library.custom_op("lora_lightning::transposed", mutates_args=())
def transposed(matrix_MN: Tensor) -> Tensor:
    """The matrix (M, N) of bytes as (N, M), contiguous."""
    if not matrix_MN.is_cuda:
        return matrix_MN.t().contiguous()
    from lora_lightning.models.fast.kernels import transpose

    m, n = matrix_MN.shape
    out_NM = matrix_MN.new_empty(n, m)
    transpose[(-(-m // TILE), -(-n // TILE))](matrix_MN, out_NM, m, n, matrix_MN.stride(0), TILE)
    return out_NM


@transposed.register_fake
def _(matrix_MN: Tensor) -> Tensor:
    return matrix_MN.new_empty(matrix_MN.shape[1], matrix_MN.shape[0])
