"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W x + (alpha / rank) B A x, by peft."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from diffusers import ModelMixin
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from lora_lightning.models.device import isolated_rng

TRAINED = "default"
"""The name of the adapter that is being trained."""


@dataclass(frozen=True)
class Adapter:
    """The two factors of one adapted linear and their scale: delta W = scale * B A."""

    module: str
    a_RI: Tensor
    b_OR: Tensor
    scale: float

    def delta_OI(self) -> Tensor:
        """What the adapter adds to the linear's weight, in fp32."""
        return self.scale * (self.b_OR.float() @ self.a_RI.float())


def inject(transformer: ModelMixin, *, rank: int, alpha: float, targets: str, seed: int) -> None:
    """Freeze the transformer and add a trainable adapter in fp32 to the linears whose names match `targets`.

    A starts Kaiming-uniform from `seed` and B at zero, so the adapted model begins as the base.
    """
    transformer.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0, bias="none")
    with isolated_rng():
        torch.manual_seed(seed)
        transformer.add_adapter(config, adapter_name=TRAINED)
        for layer in _layers(transformer):
            layer.lora_A[TRAINED].float()
            layer.lora_B[TRAINED].float()
            # peft draws A, then casts it to the base's dtype: draw again in fp32.
            layer.reset_lora_parameters(TRAINED, init_lora_weights=True)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """What is learned, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def adapters(transformer: ModelMixin, name: str = TRAINED) -> Iterator[Adapter]:
    """The adapter called `name`, linear by linear, in the model's order."""
    for module, layer in transformer.named_modules():
        if isinstance(layer, LoraLayer) and name in layer.lora_A:
            a, b = layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach()
            yield Adapter(module, a, b, layer.scaling[name])


def _layers(transformer: ModelMixin) -> Iterator[LoraLayer]:
    return (module for module in transformer.modules() if isinstance(module, LoraLayer))
