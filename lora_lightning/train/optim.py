"""Optimizers, by the recipe's name for them.

AdamW: Loshchilov & Hutter 2019 (arXiv 1711.05101); 8 bit by blocks: Dettmers et al. 2022 (arXiv 2110.02861);
Prodigy: Mishchenko & Defazio 2023 (arXiv 2306.06101); Adafactor: Shazeer & Stern 2018 (arXiv 1804.04235);
Lion: Chen et al. 2023 (arXiv 2302.06675).
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from lora_lightning.errors import InputError

Betas = tuple[float, float]
Parameters = list[nn.Parameter]
Build = Callable[[Parameters, float, Betas, float], torch.optim.Optimizer]

ADAM_BETAS, LION_BETAS = (0.9, 0.999), (0.9, 0.99)


def build(
    name: str,
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    betas: Sequence[float] = (),
    weight_decay: float = 1e-4,
) -> torch.optim.Optimizer:
    """The optimizer of that name over these parameters.

    Args:
        name: from `BUILDERS`.
        parameters: what is learned.
        learning_rate: of the first step.
        betas: of Adam, Prodigy or Lion; empty for the optimizer's own.
        weight_decay: decoupled from the gradient.

    Raises:
        InputError: the package of the optimizer is not installed.
    """
    first, second = betas or (LION_BETAS if name.startswith("lion") else ADAM_BETAS)
    return BUILDERS[name](list(parameters), learning_rate, (first, second), weight_decay)


def _adamw(parameters: Parameters, learning_rate: float, betas: Betas, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=learning_rate, betas=betas, weight_decay=weight_decay, fused=True)


def _bitsandbytes(kind: str) -> Build:
    def make(parameters: Parameters, learning_rate: float, betas: Betas, weight_decay: float) -> torch.optim.Optimizer:
        import bitsandbytes as bnb

        # Without a GPU there is nothing to page out of, and bitsandbytes warns.
        chosen = kind if torch.cuda.is_available() else kind.removeprefix("Paged")
        optimizer: torch.optim.Optimizer = getattr(bnb.optim, chosen)(
            parameters, lr=learning_rate, betas=betas, weight_decay=weight_decay
        )
        return optimizer

    return make


def _prodigy(parameters: Parameters, learning_rate: float, betas: Betas, weight_decay: float) -> torch.optim.Optimizer:
    """With the bias correction, and safe with a warm-up, as diffusers' trainers use it."""
    try:
        from prodigyopt import Prodigy
    except ImportError:
        raise InputError(
            "train.optimizer=prodigy needs the package prodigyopt, which is not installed",
            "`pip install prodigyopt==1.1.2`, or choose another optimizer.",
        ) from None
    # Decay is set afterwards: given here, the package prints that it is decoupled.
    optimizer: torch.optim.Optimizer = Prodigy(
        parameters, lr=learning_rate, betas=betas, use_bias_correction=True, safeguard_warmup=True
    )
    optimizer.param_groups[0]["weight_decay"] = weight_decay
    return optimizer


def _adafactor(
    parameters: Parameters, learning_rate: float, _betas: Betas, weight_decay: float
) -> torch.optim.Optimizer:
    """With the learning rate as given; scaled by the weights' own size, B would never leave zero."""
    from transformers.optimization import Adafactor

    optimizer: torch.optim.Optimizer = Adafactor(
        parameters,
        lr=learning_rate,
        weight_decay=weight_decay,
        scale_parameter=False,
        relative_step=False,
        warmup_init=False,
    )
    return optimizer


BUILDERS: dict[str, Build] = {
    "adamw": _adamw,
    "adamw8bit": _bitsandbytes("AdamW8bit"),
    "paged_adamw8bit": _bitsandbytes("PagedAdamW8bit"),
    "prodigy": _prodigy,
    "adafactor": _adafactor,
    "lion": _bitsandbytes("Lion32bit"),
    "lion8bit": _bitsandbytes("Lion8bit"),
}
