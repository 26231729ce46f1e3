"""LoRA factors in Black Forest Labs' layout, where several of diffusers' linears are one.

    A = (A_q; A_k; A_v)    B = blockdiag(B_q, B_k, B_v)    so B A holds each one's update in its own rows, exactly

FLUX.2's files (`diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight`) and kohya's are written so. They are read
here too: diffusers passes over such a file for FLUX.1, without an error, and knows kohya's for full-size models only.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from diffusers import Flux2Transformer2DModel, ModelMixin
from torch import Tensor, nn

from lora_lightning.models.bfl import FLUX1, FLUX2, Layout
from lora_lightning.models.lora import TRAINED, Adapter, adapters

PREFIX = "diffusion_model."
KOHYA_PREFIX = "lora_unet_"
TEXT_ENCODERS = ("lora_te", "text_encoder")


@dataclass(frozen=True)
class Fused:
    """The factors of one of BFL's modules, the scale folded into A, in fp32."""

    module: str
    a_RI: Tensor
    b_OR: Tensor


def fused(transformer: ModelMixin, layout: Layout) -> Iterator[Fused]:
    """The trained LoRA, module by module of BFL."""
    by_module = {adapter.module: adapter for adapter in adapters(transformer, TRAINED)}
    for holder in dict.fromkeys(layout.holder(module) for module in by_module):
        parts = layout.split(holder)
        held = [by_module.get(part) for part in parts]
        rows = [transformer.get_submodule(part).out_features for part in parts]
        a = [adapter.a_RI.float() * adapter.scale for adapter in held if adapter]
        yield Fused(holder, torch.cat(a), torch.block_diag(*map(_block, held, rows)))  # type: ignore[no-untyped-call]


def tensors(transformer: ModelMixin, layout: Layout) -> dict[str, Tensor]:
    """The trained LoRA as a FLUX.2 file holds it, in fp32."""
    held: dict[str, Tensor] = {}
    for part in fused(transformer, layout):
        held[f"{PREFIX}{part.module}.lora_A.weight"] = part.a_RI
        held[f"{PREFIX}{part.module}.lora_B.weight"] = part.b_OR
    return held


def is_bfl(keys: list[str]) -> bool:
    """Whether a file's keys are those of this layout."""
    return any(key.startswith((PREFIX, KOHYA_PREFIX)) for key in keys)


def to_peft(weights: Mapping[str, Tensor], transformer: ModelMixin) -> dict[str, Tensor]:
    """A file's LoRA by diffusers' names, the scale folded into A; layers of text encoders are left out.

    Raises:
        ValueError: it holds what is no LoRA of this transformer.
    """
    linears = {
        name.replace(".base_layer", ""): module.out_features
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name
    }
    layout = FLUX2 if isinstance(transformer, Flux2Transformer2DModel) else FLUX1
    spelt = {layout.holder(name).replace(".", "_"): layout.holder(name) for name in linears}
    factors: dict[str, dict[str, Tensor]] = {}
    for key, weight in weights.items():
        if not key.startswith(TEXT_ENCODERS):
            module, _, kind = key.removesuffix(".weight").rpartition(".")
            module = module.removeprefix(PREFIX)
            name = spelt.get(module.removeprefix(KOHYA_PREFIX), module)
            factors.setdefault(name, {})[_KINDS.get(kind, kind)] = weight
    held: dict[str, Tensor] = {}
    for name, found in factors.items():
        parts = [name] if name in linears else [part for part in layout.split(name) if part in linears]
        if not parts or not {"A", "B"} <= found.keys() <= {"A", "B", "alpha"}:
            raise ValueError(f"{name} with {', '.join(sorted(found))} is no LoRA of this model")
        rank = found["A"].shape[0]
        scale = found["alpha"].item() / rank if "alpha" in found else 1.0
        for part, rows_OR in zip(parts, found["B"].split_with_sizes([linears[part] for part in parts]), strict=True):
            acting = rows_OR.any(0) if len(parts) > 1 else torch.ones(rank, dtype=torch.bool)
            if acting.any():
                held[f"transformer.{part}.lora_A.weight"] = found["A"][acting] * scale
                held[f"transformer.{part}.lora_B.weight"] = rows_OR[:, acting]
    return held


_KINDS = {"lora_A": "A", "lora_down": "A", "lora_B": "B", "lora_up": "B"}


def _block(adapter: Adapter | None, rows: int) -> Tensor:
    """One module's B; a module that is not adapted has rows of zeros and no columns."""
    return adapter.b_OR.float() if adapter else torch.zeros(rows, 0)
