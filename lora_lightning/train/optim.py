"""Optimizers, by the recipe's name for them; all AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101)."""

from collections.abc import Iterable

import torch
from torch import nn

BETAS = (0.9, 0.999)
WEIGHT_DECAY = 1e-4


def build(name: str, parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """`adamw` keeps its state in fp32, `adamw8bit` in 8 bit by blocks (Dettmers et al. 2022, arXiv 2110.02861)."""
    if name == "adamw8bit":
        import bitsandbytes as bnb

        optimizer: torch.optim.Optimizer = bnb.optim.AdamW8bit(
            parameters, lr=learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY
        )
        return optimizer
    return torch.optim.AdamW(parameters, lr=learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
