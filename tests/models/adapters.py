"""Adapters that do something, and what they change in each weight."""

import torch

from lora_lightning.models import lora
from lora_lightning.models.sampling import Shot

KINDS = ("lora", "dora", "lokr", "loha")
SHOT = Shot("a red cup", seed=3, width=64, height=64, steps=2, guidance=3.5)


def trained(family, kind="lora", targets="all", seed=1, **options):
    """A transformer whose adapter does something, with a scale that is not 1."""
    transformer = family.load_transformer()
    options = {"rank": 4, "alpha": 6.0, "seed": seed} | options
    lora.inject(transformer, targets=family.lora_targets.get(targets, targets), kind=kind, **options)
    generator = torch.Generator().manual_seed(seed)
    for weight in lora.trainable(transformer).values():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return transformer


def deltas(transformer, name="default"):
    return {module: lora.delta_OI(layer, name) for module, layer in lora.adapted(transformer, name)}
