"""Low-rank adapters by peft: what they add to a linear's weight W (O x I), and how they begin.

LoRA   delta W = s B A                     s = alpha / r, or alpha / sqrt(r) (rsLoRA, arXiv 2312.03732)
       Hu et al. 2021, arXiv 2106.09685
DoRA   W' = m (W + s B A) / |W + s B A|    norms over rows; m is learned
       Liu et al. 2024, arXiv 2402.09353
LoKr   delta W = s W1 (x) W2               Kronecker product, W2 = W2a W2b where that is smaller
LoHa   delta W = s (W1a W1b) * (W2a W2b)   elementwise product
       Yeh et al. 2023 (LyCORIS), arXiv 2309.14859
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from diffusers import ModelMixin
from peft import LoHaConfig, LoKrConfig, LoraConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.lycoris_utils import LycorisLayer
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

from lora_lightning.errors import InputError
from lora_lightning.models.device import isolated_rng

TRAINED = "default"
"""The name of the adapter that is being trained."""
ASSISTANT = "assistant"
"""The name of a frozen adapter that helps while training, and is off while drawing."""

Layer: TypeAlias = LoraLayer | LycorisLayer


@dataclass(frozen=True)
class Adapter:
    """The two factors of one linear adapted by LoRA and their scale: delta W = scale * B A; for DoRA also m."""

    module: str
    a_RI: Tensor
    b_OR: Tensor
    scale: float
    magnitude_O: Tensor | None = None

    def delta_OI(self) -> Tensor:
        """What the factors add to the linear's weight, in fp32, before any magnitude."""
        return self.scale * (self.b_OR.float() @ self.a_RI.float())


def inject(
    transformer: ModelMixin,
    *,
    rank: int,
    alpha: float,
    targets: str,
    seed: int,
    kind: str = "lora",
    ranks: Mapping[str, int] | None = None,
    rslora: bool = False,
    dropout: float = 0.0,
    factor: int = 8,
) -> None:
    """Freeze the transformer and add a trainable adapter in fp32 to the linears whose names match `targets`.

    It begins as the base: A Kaiming-uniform from `seed` and B zero, and likewise for the other kinds.

    Args:
        transformer: what is adapted.
        rank: of every module that `ranks` does not name.
        alpha: the update is scaled by alpha / rank, the same for all ranks; by alpha / sqrt(rank) for rsLoRA.
        targets: a regular expression over whole module names.
        seed: of the beginning.
        kind: lora, dora, lokr or loha.
        ranks: regular expression over a module's name, or its end after a dot -> its rank.
        rslora: scale by alpha / sqrt(rank).
        dropout: of the adapter's inputs; drawn from torch's global random state.
        factor: the size of LoKr's W1.

    Raises:
        InputError: an expression matches no linear, or the base is quantised in a way that this kind cannot work on.
    """
    transformer.requires_grad_(False)
    ranks = ranks or {}
    names = _matching(transformer, targets, ranks)
    _check_base(kind, transformer.get_submodule(names[0]))
    common: dict[str, Any] = {
        "r": rank,
        "target_modules": "|".join(re.escape(name) for name in names),
        "rank_pattern": dict(ranks),
        "alpha_pattern": {} if rslora else {pattern: alpha * r / rank for pattern, r in ranks.items()},
    }
    config: Any
    if kind == "lokr":
        config = LoKrConfig(alpha=alpha, decompose_factor=factor, **common)
    elif kind == "loha":
        config = LoHaConfig(alpha=alpha, **common)
    else:
        config = LoraConfig(
            lora_alpha=alpha, lora_dropout=dropout, bias="none", use_rslora=rslora, use_dora=kind == "dora", **common
        )
    with isolated_rng():
        torch.manual_seed(seed)
        transformer.add_adapter(config, adapter_name=TRAINED)
        for _, layer in adapted(transformer):
            # peft draws the factors, then casts them to the base's dtype: draw again in fp32.
            for weight in weights_of(layer).values():
                weight.data = weight.data.float()
            if isinstance(layer, LoraLayer):
                layer.reset_lora_parameters(TRAINED, init_lora_weights=True)
            else:
                layer.reset_adapter_parameters(TRAINED)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """What is learned, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def adapted(transformer: ModelMixin, name: str = TRAINED) -> Iterator[tuple[str, Layer]]:
    """The layers that hold the adapter called `name`, with the module each one adapts, in the model's order."""
    for module, layer in transformer.named_modules():
        if isinstance(layer, LoraLayer | LycorisLayer) and name in layer.r:
            yield module.replace(".base_layer", ""), layer


def adapters(transformer: ModelMixin, name: str = TRAINED) -> Iterator[Adapter]:
    """The LoRA or DoRA called `name`, linear by linear, in the model's order."""
    for module, layer in adapted(transformer, name):
        if isinstance(layer, LoraLayer):
            a, b = layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach()
            magnitudes = layer.lora_magnitude_vector
            magnitude = magnitudes[name].weight.detach() if name in magnitudes else None
            yield Adapter(module, a, b, layer.scaling[name], magnitude)


def weights_of(layer: Layer, name: str = TRAINED) -> dict[str, Tensor]:
    """An adapter's weights in one layer: lora_A, lora_B, lora_magnitude_vector, or LyCORIS' own names."""
    held = {kind: getattr(layer, kind) for kind in layer.adapter_layer_names}
    found = {kind: by_name[name] for kind, by_name in held.items() if name in by_name}
    return {kind: getattr(weight, "weight", weight) for kind, weight in found.items()}


def kind_of(layer: Layer, name: str = TRAINED) -> str:
    """lora, dora, lokr or loha."""
    if isinstance(layer, LoraLayer):
        return "dora" if name in layer.lora_magnitude_vector else "lora"
    return "lokr" if hasattr(layer, "lokr_w1") else "loha"


@torch.no_grad()
def delta_OI(layer: Layer, name: str) -> Tensor:
    """What an adapter changes in its linear's weight, in fp32."""
    if not isinstance(layer, LoraLayer):
        changed: Tensor = layer.get_delta_weight(name).float()
        return changed
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    delta: Tensor = layer.scaling[name] * (b.float() @ a.float())
    if name not in layer.lora_magnitude_vector:
        return delta
    base = base_weight(layer)
    whole = base + delta
    magnitude_O1: Tensor = layer.lora_magnitude_vector[name].weight.float()[:, None]
    scaled: Tensor = magnitude_O1 * whole / whole.norm(dim=1, keepdim=True)
    return scaled - base


def base_weight(layer: Layer) -> Tensor:
    """The frozen weight under an adapter, dequantised, in fp32."""
    weight: Tensor = dequantize_module_weight(layer.get_base_layer()).float()
    return weight


@contextmanager
def without_assistant(transformer: ModelMixin) -> Iterator[None]:
    """Inside, the assistant adds zero: the same bits as if it were not there."""
    layers = [layer for _, layer in adapted(transformer, ASSISTANT)]
    scales = [layer.scaling[ASSISTANT] for layer in layers]
    try:
        for layer in layers:
            layer.scaling[ASSISTANT] = 0.0
        yield
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[ASSISTANT] = scale


def _check_base(kind: str, linear: nn.Linear) -> None:
    """DoRA needs the weights' norms, which peft knows of plain and 4-bit ones; LoKr and LoHa need their shape."""
    packed = linear.weight.shape != (linear.out_features, linear.in_features)
    if {"dora": not packed and linear.weight.dtype.itemsize == 1, "lokr": packed, "loha": packed}.get(kind):
        stored = "4" if packed else "8"
        raise InputError(
            f"lora.kind={kind} cannot be trained on a base in {stored} bit",
            f"Set train.quantize={'none or int8, and model.low_vram=false' if packed else 'none or nf4'}; "
            "or lora.kind=lora.",
        )


def _matching(transformer: ModelMixin, targets: str, ranks: Mapping[str, int]) -> list[str]:
    linears = [name for name, module in transformer.named_modules() if isinstance(module, nn.Linear)]
    names = [name for name in linears if re.fullmatch(targets, name)]
    if not names:
        raise InputError(
            f"no linear of this model has a name that matches {targets!r}",
            f"Use lora.targets, or an expression over names such as {linears[len(linears) // 2]}.",
        )
    for pattern in ranks:
        if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):  # as peft matches
            raise InputError(
                f"lora.ranks: {pattern!r} matches none of the {len(names)} adapted linears",
                f"Use an expression over names such as {names[0]}.",
            )
    return names
