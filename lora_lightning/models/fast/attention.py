"""Attention as training needs it: the fastest kernel of the device, with a gradient that is right.

Shapes: B batch, L tokens, H heads, D features of a head.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_SCORES = 2**24
"""On the CPU the scores of so many pairs are written out: torch's backward pass there takes nine times its forward."""


def attention(query_BLHD: Tensor, key_BLHD: Tensor, value_BLHD: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(D)) V, heads side by side: shape (B, L, H D).

    On NVIDIA in half precision by cuDNN, twice as fast as FlashAttention-2 on Hopper; of few tokens on the CPU by the
    equation itself, in fp32.
    """
    query, key, value = (part.transpose(1, 2) for part in (query_BLHD, key_BLHD, value_BLHD))
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and torch.version.cuda:
        out_BHLD = torch.ops.aten._scaled_dot_product_cudnn_attention(query, key, value, None, query.requires_grad)[0]
        out_BHLD = _ContiguousGradient.apply(out_BHLD)  # type: ignore[no-untyped-call]
    elif query.device.type == "cpu" and query.shape[0] * query.shape[1] * query.shape[2] ** 2 <= MOST_SCORES:
        scores_BHLL = (query.float() * query.shape[-1] ** -0.5) @ key.float().transpose(-1, -2)
        out_BHLD = (scores_BHLL.softmax(dim=-1) @ value.float()).to(value.dtype)
    else:
        out_BHLD = F.scaled_dot_product_attention(query, key, value)
    out_BLD: Tensor = out_BHLD.transpose(1, 2).flatten(2)
    return out_BLD


class _ContiguousGradient(torch.autograd.Function):
    """The identity. torch 2.11's cuDNN attention gives wrong gradients (by 140 %) when that of its output is strided.

    So it is in FLUX's single blocks, where it is a slice of a concatenation's gradient.
    """

    @staticmethod
    def forward(ctx: Any, out_BHLD: Tensor) -> Tensor:
        return out_BHLD.view_as(out_BHLD)

    @staticmethod
    def backward(ctx: Any, gradient_BHLD: Tensor) -> Tensor:
        return gradient_BHLD.transpose(1, 2).contiguous().transpose(1, 2)
