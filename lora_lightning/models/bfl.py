"""Black Forest Labs' layout of the transformers, also ComfyUI's and kohya's, in terms of diffusers' names.

    double_blocks.N.img_attn.qkv = rows of transformer_blocks.N.attn.to_q, to_k, to_v
    single_blocks.N.linear1      = rows of single_transformer_blocks.N.attn.to_q, to_k, to_v and proj_mlp (FLUX.1)

Source: black-forest-labs/flux and flux2, src/*/model.py; diffusers, loaders/single_file_utils.py.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

IMAGE_QKV = tuple(f"attn.to_{part}" for part in "qkv")
TEXT_QKV = tuple(f"attn.add_{part}_proj" for part in "qkv")

_ATTENTION = {
    "img_attn.qkv": IMAGE_QKV,
    "txt_attn.qkv": TEXT_QKV,
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
}
_SINGLE_NORMS = {"norm.query_norm": ("attn.norm_q",), "norm.key_norm": ("attn.norm_k",)}


@dataclass(frozen=True)
class Layout:
    """One architecture: BFL's module -> diffusers' modules, whose rows lie one after another in it.

    Args:
        double: inside double_blocks.N and transformer_blocks.N.
        single: inside single_blocks.N and single_transformer_blocks.N.
        outside: outside the blocks.
    """

    double: Mapping[str, tuple[str, ...]]
    single: Mapping[str, tuple[str, ...]]
    outside: Mapping[str, str]

    def split(self, name: str) -> tuple[str, ...]:
        """The diffusers modules that one module of BFL holds; none when it is not known."""
        for theirs, ours, inside in self._blocks:
            if found := re.fullmatch(rf"{theirs}\.(\d+)\.(.+)", name):
                return tuple(f"{ours}.{found[1]}.{part}" for part in inside.get(found[2], ()))
        return (self.outside[name],) if name in self.outside else ()

    def holder(self, module: str) -> str:
        """The BFL module that holds a diffusers module.

        Raises:
            KeyError: none does.
        """
        for theirs, ours, inside in self._blocks:
            if found := re.fullmatch(rf"{ours}\.(\d+)\.(.+)", module):
                fused = {part: f"{theirs}.{found[1]}.{name}" for name, parts in inside.items() for part in parts}
                return fused[found[2]]
        return {part: name for name, part in self.outside.items()}[module]

    @property
    def _blocks(self) -> Iterator[tuple[str, str, Mapping[str, tuple[str, ...]]]]:
        yield "double_blocks", "transformer_blocks", self.double
        yield "single_blocks", "single_transformer_blocks", self.single


FLUX1 = Layout(
    double=_ATTENTION
    | {
        "img_mlp.0": ("ff.net.0.proj",),
        "img_mlp.2": ("ff.net.2",),
        "txt_mlp.0": ("ff_context.net.0.proj",),
        "txt_mlp.2": ("ff_context.net.2",),
        "img_mod.lin": ("norm1.linear",),
        "txt_mod.lin": ("norm1_context.linear",),
    },
    single=_SINGLE_NORMS
    | {
        "linear1": (*IMAGE_QKV, "proj_mlp"),
        "linear2": ("proj_out",),
        "modulation.lin": ("norm.linear",),
    },
    outside={
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
        "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
        "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
        "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
        "final_layer.linear": "proj_out",
        "final_layer.adaLN_modulation.1": "norm_out.linear",
    },
)

FLUX2 = Layout(
    double=_ATTENTION
    | {
        "img_mlp.0": ("ff.linear_in",),
        "img_mlp.2": ("ff.linear_out",),
        "txt_mlp.0": ("ff_context.linear_in",),
        "txt_mlp.2": ("ff_context.linear_out",),
    },
    single=_SINGLE_NORMS | {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)},
    outside={
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
        "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
        "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
        "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
        "single_stream_modulation.lin": "single_stream_modulation.linear",
        "final_layer.linear": "proj_out",
        "final_layer.adaLN_modulation.1": "norm_out.linear",
    },
)


def to_diffusers(weights: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """A transformer's weights by diffusers' names; those that have them already are left as they are.

    Parts of a fused module are equally long, but for FLUX.1's linear1: width, width, width and the rest.
    """
    plain = {name.removeprefix("model.diffusion_model."): tensor for name, tensor in weights.items()}
    converted = {}
    for name, tensor in plain.items():
        module, _, kind = name.rpartition(".")
        parts = layout.split(module)
        if not parts:
            converted[name] = tensor
            continue
        if module == "final_layer.adaLN_modulation.1":  # BFL: shift, scale; diffusers: scale, shift
            tensor = torch.cat(tensor.chunk(2)[::-1])
        width = plain["img_in.weight"].shape[0] if len(parts) > 1 else 0
        sizes = [*[width] * (len(parts) - 1), tensor.shape[0] - width * (len(parts) - 1)]
        for part, rows in zip(parts, tensor.split_with_sizes(sizes), strict=True):
            converted[f"{part}.{'weight' if kind == 'scale' else kind}"] = rows
    return converted
