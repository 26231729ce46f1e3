"""4-bit NormalFloat storage of frozen linears (Dettmers et al. 2023, arXiv 2305.14314, section 3), by bitsandbytes."""

import bitsandbytes as bnb
import torch
from torch import nn


def quantize(blocks: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Replace every linear inside `blocks` by a 4-bit one on `device` that computes in `dtype`.

    One by one, so that the device never holds the whole model unquantised. diffusers' own configuration for this
    refuses to work without a GPU.
    """
    for module in list(blocks.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, _quantized(child, device, dtype))


def _quantized(linear: nn.Linear, device: torch.device, dtype: torch.dtype) -> nn.Module:
    quantized = bnb.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=dtype,
        quant_type="nf4",
        device="meta",
    )
    quantized.weight = bnb.nn.Params4bit(
        linear.weight.data.contiguous(), requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    if linear.bias is not None:
        quantized.bias = nn.Parameter(linear.bias.data.to(dtype), requires_grad=False)
    packed: nn.Module = quantized.to(device)  # the move is what packs the weight
    return packed
