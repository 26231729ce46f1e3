"""FLUX.1's two kinds of block as training runs them: diffusers' functions, of fewer and larger operations.

Shapes: B batch, L tokens (T of the text, then P of the picture), D features, H heads.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_lightning.models.fast.attention import attention
from lora_lightning.models.fast.linears import Stack

Rope = tuple[Tensor, Tensor, Tensor]
"""Of each feature of a head: its cosine and signed sine (L, D / H) in fp32, and whether it is the first of its pair."""


class Norm(NamedTuple):
    """Root-mean-square norm of a head's features (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    weight_D: Tensor
    eps: float

    def __call__(self, x_BLHD: Tensor) -> Tensor:
        """The normalised x, in its dtype."""
        return F.rms_norm(x_BLHD, self.weight_D.shape, self.weight_D, self.eps)


class Stream(NamedTuple):
    """One of the two streams of a double block."""

    qkv: Stack
    out: Stack
    up: Stack
    down: Stack
    norm_q: Norm
    norm_k: Norm


class Double(NamedTuple):
    """A double block: separate weights for text and picture, joint attention."""

    text: Stream
    picture: Stream
    heads: int


class Single(NamedTuple):
    """A single block: attention and feed-forward side by side, on all tokens alike."""

    qkv: Stack
    up: Stack
    out: Stack
    norm_q: Norm
    norm_k: Norm
    heads: int


def double(
    text_BTD: Tensor, picture_BPD: Tensor, text_6B1D: Tensor, picture_6B1D: Tensor, rope: Rope, block: Double
) -> tuple[Tensor, Tensor]:
    """The double block; `*_6B1D` are shift, scale, gate of attention and of feed-forward."""
    tokens = text_BTD.shape[1]
    streams = (block.text, text_BTD, text_6B1D), (block.picture, picture_BPD, picture_6B1D)
    queries, keys, values = [], [], []
    for stream, x_BLD, modulation in streams:
        qkv = stream.qkv(modulated(x_BLD, modulation[0], modulation[1]))
        query, key, value = (part.unflatten(-1, (block.heads, -1)) for part in qkv.chunk(3, dim=-1))
        queries.append(stream.norm_q(query))
        keys.append(stream.norm_k(key))
        values.append(value)
    mixed_BLD = attention(rotated(torch.cat(queries, 1), rope), rotated(torch.cat(keys, 1), rope), torch.cat(values, 1))
    outputs = []
    for (stream, x_BLD, modulation), part_BLD in zip(
        streams, (mixed_BLD[:, :tokens], mixed_BLD[:, tokens:]), strict=True
    ):
        x_BLD = torch.addcmul(x_BLD, modulation[2], stream.out(part_BLD))
        hidden = F.gelu(stream.up(modulated(x_BLD, modulation[3], modulation[4])), approximate="tanh")
        outputs.append(torch.addcmul(x_BLD, modulation[5], stream.down(hidden)))
    return outputs[0], outputs[1]


def single(x_BLD: Tensor, modulation_3B1D: Tensor, rope: Rope, block: Single) -> Tensor:
    """The single block; `modulation_3B1D` is shift, scale, gate."""
    seen_BLD = modulated(x_BLD, modulation_3B1D[0], modulation_3B1D[1])
    query, key, value = (part.unflatten(-1, (block.heads, -1)) for part in block.qkv(seen_BLD).chunk(3, dim=-1))
    mixed_BLD = attention(rotated(block.norm_q(query), rope), rotated(block.norm_k(key), rope), value.contiguous())
    hidden = F.gelu(block.up(seen_BLD), approximate="tanh")
    return torch.addcmul(x_BLD, modulation_3B1D[2], block.out(mixed_BLD, hidden))


def modulated(x_BLD: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
    """Layer norm without weights, scaled and shifted (adaLN: Peebles & Xie 2022, arXiv 2212.09748)."""
    return torch.addcmul(shift_B1D, F.layer_norm(x_BLD, x_BLD.shape[-1:], eps=1e-6), 1 + scale_B1D)


def rotated(x_BLHD: Tensor, rope: Rope) -> Tensor:
    """Rotate each pair of neighbouring features by its token's angles (RoPE: Su et al. 2021, arXiv 2104.09864)."""
    cosine, sine, first = rope
    exact = x_BLHD.float()
    if not torch.compiler.is_compiling():
        turn_LD = torch.complex(cosine[:, ::2], sine[:, 1::2])
        pairs = torch.view_as_complex(exact.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * turn_LD[None, :, None]).flatten(-2).to(x_BLHD.dtype)
    # A compiled backward pass computes again what is rolled, and rolls it back; what is stacked or complex it would
    # keep, and what is indexed it would scatter into zeros.
    paired = torch.where(first, exact.roll(-1, dims=-1), exact.roll(1, dims=-1))
    return (exact * cosine[None, :, None] + paired * sine[None, :, None]).to(x_BLHD.dtype)


def rope_of(cosine_LD: Tensor, sine_LD: Tensor) -> Rope:
    """From diffusers' tables: (a, b) becomes (a cos - b sin, b cos + a sin)."""
    features = torch.arange(sine_LD.shape[1], device=sine_LD.device)
    first = features % 2 == 0
    return cosine_LD, torch.where(first, -sine_LD, sine_LD), first
