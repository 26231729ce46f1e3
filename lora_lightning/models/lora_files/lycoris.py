"""LoKr and LoHa files: LyCORIS' names behind diffusers' module names, the scale folded into the first factor.

ComfyUI and Forge read them so (`transformer.MODULE.lokr_w1`); diffusers loads LoKr into a transformer, and LoHa not at
all. Both come without `.alpha`, which those readers would apply only where a factor is decomposed.
"""

import re
from collections import Counter
from collections.abc import Mapping

import torch
from diffusers import ModelMixin
from peft import LoHaConfig, set_peft_model_state_dict
from torch import Tensor

from lora_lightning.models.lora import TRAINED, adapted, weights_of

PREFIX = "transformer."
UNDERSCORED = "lycoris_"
"""Other trainers write dots as underscores after this."""
_FIRST = ("lokr_w1", "lokr_w1_a", "hada_w1_a")


def is_lycoris(keys: list[str]) -> bool:
    """Whether a file's keys are those of LoKr or LoHa."""
    return any(".lokr_" in key or ".hada_" in key for key in keys)


def tensors(transformer: ModelMixin) -> dict[str, Tensor]:
    """The trained adapter as a file holds it, in fp32."""
    held: dict[str, Tensor] = {}
    for module, layer in adapted(transformer, TRAINED):
        for kind, weight in weights_of(layer).items():
            scale = layer.scaling[TRAINED] if kind in _FIRST else 1.0
            held[f"{PREFIX}{module}.{kind}"] = weight.detach().float() * scale
    return held


def load(transformer: ModelMixin, weights: Mapping[str, Tensor], name: str) -> None:
    """Add a file's LoKr or LoHa as the adapter `name`.

    Raises:
        ValueError: it does not fit the transformer.
    """
    plain = _folded(_named(transformer, weights))
    if any(".lokr_" in key for key in plain):
        transformer.load_lora_adapter(plain, prefix=None, adapter_name=name)
        return
    ranks = {key.rpartition(".")[0]: weight.shape[0] for key, weight in plain.items() if key.endswith(".hada_w1_b")}
    common = Counter(ranks.values()).most_common(1)[0][0]
    others = {re.escape(module): rank for module, rank in ranks.items() if rank != common}
    config = LoHaConfig(
        r=common,
        alpha=common,
        target_modules="|".join(re.escape(module) for module in ranks),
        rank_pattern=others,
        alpha_pattern=dict(others),
    )
    transformer.add_adapter(config, adapter_name=name)
    left = set_peft_model_state_dict(transformer, dict(plain), name).unexpected_keys
    if left:
        raise ValueError(f"{len(left)} of its weights have no place in this model, such as {left[0]}")


def _named(transformer: ModelMixin, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by `MODULE.kind`."""
    spelt = {name.replace(".base_layer", "").replace(".", "_"): name for name, _ in transformer.named_modules()}
    named = {}
    for key, weight in weights.items():
        module, _, kind = key.rpartition(".")
        if module.startswith(UNDERSCORED):
            module = spelt.get(module.removeprefix(UNDERSCORED), module)
        named[f"{module.removeprefix(PREFIX)}.{kind}"] = weight
    return named


def _folded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with alpha / rank folded in, where a file of another tool has `.alpha` and decomposed factors."""
    folded = {key: weight for key, weight in weights.items() if not key.endswith(".alpha")}
    for key in weights.keys() - folded.keys():
        module = key.removesuffix(".alpha")
        inner = next((weights[f"{module}.{kind}"] for kind in ("lokr_w2_b", "lokr_w1_b", "hada_w1_b")
                      if f"{module}.{kind}" in weights), None)  # fmt: skip
        first = next(f"{module}.{kind}" for kind in _FIRST if f"{module}.{kind}" in weights)
        if inner is not None:
            folded[first] = folded[first] * (torch.as_tensor(weights[key]).item() / inner.shape[0])
    return folded
