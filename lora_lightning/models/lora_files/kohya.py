"""The fallback for tools that know only kohya's keys: `lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight`.

Source: kohya-ss/sd-scripts, networks/lora_flux.py and networks/convert_flux_lora.py.
"""

import torch
from diffusers import ModelMixin
from torch import Tensor

from lora_lightning.models.bfl import Layout
from lora_lightning.models.lora_files import bfl


def tensors(transformer: ModelMixin, layout: Layout) -> dict[str, Tensor]:
    """The trained LoRA in fp32; alpha equals the rank, since the scale is folded into the weights."""
    held: dict[str, Tensor] = {}
    for part in bfl.fused(transformer, layout):
        key = bfl.KOHYA_PREFIX + part.module.replace(".", "_")
        held[f"{key}.lora_down.weight"] = part.a_RI
        held[f"{key}.lora_up.weight"] = part.b_OR
        held[f"{key}.alpha"] = torch.tensor(float(part.a_RI.shape[0]))
    return held
