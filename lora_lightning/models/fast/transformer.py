"""FLUX.1's transformer as training runs it, in place of diffusers' forward pass.

Shapes: B batch, L tokens, D features.
"""

import logging
import re
from collections.abc import Callable
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, ModelMixin
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock, FluxTransformerBlock
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from lora_lightning.models.fast import blocks
from lora_lightning.models.fast.linears import Linears, Stack, base_of, refresh
from lora_lightning.models.fast.modulation import Modulation
from lora_lightning.models.fast.plan import Level, Plan
from lora_lightning.models.fast.programs import Programs, computed_again
from lora_lightning.models.fast.scaled import ScaledLinears
from lora_lightning.models.fast.stored import StoredLinears
from lora_lightning.models.fast.streaming import Streaming
from lora_lightning.models.lora import TRAINED
from lora_lightning.models.quantize.fp8 import Fp8Linear

log = logging.getLogger("lora_lightning")
_IN_A_STACK = re.compile(
    r"transformer_blocks\.\d+\.(attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)|ff(_context)?\.net\.(0\.proj|2))"
    r"|single_transformer_blocks\.\d+\.(attn\.to_[qkv]|proj_mlp|proj_out)"
)


class FastFlux1:
    """Stands in for `forward` of an adapted FluxTransformer2DModel while gradients are asked for.

    Without gradients (drawing, proving a file) the modules' own forward pass runs, on the same weights.
    """

    def __init__(self, transformer: FluxTransformer2DModel, plan: Plan) -> None:
        self.plan = plan
        self._transformer = transformer
        doubles = [_double(block, self._stack) for block in transformer.transformer_blocks]
        singles = [_single(block, self._stack) for block in transformer.single_transformer_blocks]
        self._doubles, self._singles = doubles, singles
        self._built: list[blocks.Double | blocks.Single] = [*doubles, *singles]
        self.modulation = Modulation(_modulations(transformer), plan.compile)
        self._stacks = [stack for block in self._built for stack in _stacks_of(block)]
        self._double, self._single = Programs(blocks.double, plan.compile), Programs(blocks.single, plan.compile)
        self._levels = plan.levels(len(self._built))
        self._streaming = self._stream()

    def __call__(self, hidden_states: Tensor, *arguments: Any, **named: Any) -> Any:
        """As FluxTransformer2DModel.forward."""
        if not torch.is_grad_enabled():
            return FluxTransformer2DModel.forward(self._transformer, hidden_states, *arguments, **named)
        device = hidden_states.device.type
        with torch.autocast(device, enabled=False):
            refresh(self._stacks)
            return self._train(hidden_states, *arguments, **named)

    def _train(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        img_ids: Tensor,
        txt_ids: Tensor,
        guidance: Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        model, tokens = self._transformer, encoder_hidden_states.shape[1]
        assert not return_dict
        with torch.no_grad():
            picture_BPD = model.x_embedder(hidden_states)
            text_BTD = model.context_embedder(encoder_hidden_states)
            facts = (timestep,) if guidance is None else (timestep, guidance)
            scaled = [fact.to(picture_BPD.dtype) * 1000 for fact in facts]
            embedding_BD = model.time_text_embed(*scaled, pooled_projections)
            modulations = self.modulation(embedding_BD)
            rope = blocks.rope_of(*model.pos_embed(torch.cat((txt_ids, img_ids))))
        # As if an adapter stood before them: so the first block of each kind is the same program as the others.
        picture_BPD, text_BTD = (x.requires_grad_().view_as(x) for x in (picture_BPD, text_BTD))

        self._mark(rope[0], 0)
        self._mark(rope[1], 0)
        for index, block in enumerate(self._doubles):
            of_picture, of_text = modulations[2 * index : 2 * index + 2]
            self._mark(picture_BPD, 1)
            text_BTD, picture_BPD = self._run(
                index, self._double, text_BTD, picture_BPD, of_text, of_picture, rope, block
            )
        x_BLD = torch.cat((text_BTD, picture_BPD), dim=1)
        for index, single in enumerate(self._singles, start=len(self._doubles)):
            self._mark(x_BLD, 1)
            x_BLD = self._run(index, self._single, x_BLD, modulations[len(self._doubles) + index], rope, single)
        return (model.proj_out(model.norm_out(x_BLD[:, tokens:], embedding_BD)),)

    def _stack(self, *layers: nn.Module) -> Stack:
        if isinstance(base_of(layers[0]), Fp8Linear):
            return ScaledLinears(layers, self.plan.keep_transposed)
        return Linears(layers) if type(base_of(layers[0])) is nn.Linear else StoredLinears(layers)

    def _mark(self, tensor: Tensor, dimension: int) -> None:
        if self.plan.dynamic:
            torch._dynamo.maybe_mark_dynamic(tensor, dimension)

    def _run(self, index: int, programs: Programs, *arguments: Any) -> Any:
        program = programs.at(self._levels[index])
        if self._levels[index] is not Level.STREAMED:
            return program(*arguments)

        def brought(*arguments: Any) -> Any:
            self._bring(index)
            return program(*arguments)

        return computed_again(brought, *arguments)

    def _stream(self) -> Streaming | None:
        """Take the frozen weights of the blocks that wait in the host's memory off the device."""
        modules = [*self._transformer.transformer_blocks, *self._transformer.single_transformer_blocks]
        self._places = [index for index, level in enumerate(self._levels) if level is Level.STREAMED]
        if not self._places:
            return None
        for index in self._places:
            modules[index].register_forward_pre_hook(lambda *_, index=index: self._bring(index))
        held = [_frozen(modules[index], _stacks_of(self._built[index])) for index in self._places]
        return Streaming(held, next(self._transformer.parameters()).device)

    def _bring(self, index: int) -> None:
        assert self._streaming
        self._streaming.bring(self._places.index(index))


def accelerate(transformer: ModelMixin, plan: Plan) -> FastFlux1 | None:
    """Let an adapted transformer train by `plan` from now on.

    None, and nothing done, unless it is FLUX.1 with a plain LoRA without dropout on linears inside its blocks, and
    with nothing beside that.
    """
    if type(transformer) is not FluxTransformer2DModel or not all(
        _IN_A_STACK.fullmatch(name) and _plain(layer)
        for name, layer in transformer.named_modules()
        if isinstance(layer, BaseTunerLayer)
    ):
        return None
    fast = FastFlux1(transformer, plan)
    transformer.forward = fast
    return fast


def speed_up(transformer: ModelMixin, plan: Plan) -> bool:
    """Train by `plan`; False, and a warning, where it cannot be.

    Args:
        transformer: frozen, with a trainable adapter.
        plan: what is compiled, computed again and streamed.
    """
    if accelerate(transformer, plan):
        return True
    log.warning("train.fast has no effect: it is for FLUX.1 with a plain LoRA without dropout, inside the blocks")
    return False


def _plain(layer: BaseTunerLayer) -> bool:
    return (
        isinstance(layer, LoraLayer)
        and list(layer.r) == [TRAINED] == list(layer.active_adapters)
        and not layer.lora_magnitude_vector
        and not isinstance(layer.lora_dropout[TRAINED], nn.Dropout)
    )


def _double(block: FluxTransformerBlock, stack: Callable[..., Stack]) -> blocks.Double:
    attn = block.attn
    text = blocks.Stream(
        qkv=stack(attn.add_q_proj, attn.add_k_proj, attn.add_v_proj),
        out=stack(attn.to_add_out),
        up=stack(block.ff_context.net[0].proj),
        down=stack(block.ff_context.net[2]),
        norm_q=_norm(attn.norm_added_q),
        norm_k=_norm(attn.norm_added_k),
    )
    picture = blocks.Stream(
        qkv=stack(attn.to_q, attn.to_k, attn.to_v),
        out=stack(attn.to_out[0]),
        up=stack(block.ff.net[0].proj),
        down=stack(block.ff.net[2]),
        norm_q=_norm(attn.norm_q),
        norm_k=_norm(attn.norm_k),
    )
    return blocks.Double(text, picture, attn.heads)


def _single(block: FluxSingleTransformerBlock, stack: Callable[..., Stack]) -> blocks.Single:
    attn = block.attn
    return blocks.Single(
        qkv=stack(attn.to_q, attn.to_k, attn.to_v),
        up=stack(block.proj_mlp),
        out=stack(block.proj_out),
        norm_q=_norm(attn.norm_q),
        norm_k=_norm(attn.norm_k),
        heads=attn.heads,
    )


def _stacks_of(block: blocks.Double | blocks.Single) -> list[Stack]:
    if isinstance(block, blocks.Single):
        return [block.qkv, block.up, block.out]
    return [stack for stream in (block.text, block.picture) for stack in stream[:4]]


def _frozen(module: nn.Module, stacks: list[Stack]) -> list[Tensor]:
    """All that shows the frozen weights of a block, but for the modulation's, which are used before the blocks run."""
    shown = [tensor for stack in stacks for tensor in stack.frozen]
    storages = {tensor.untyped_storage().data_ptr() for tensor in shown}
    held = [*module.parameters(), *module.buffers()]
    return [*shown, *(tensor for tensor in held if tensor.untyped_storage().data_ptr() in storages)]


def _norm(norm: nn.RMSNorm) -> blocks.Norm:
    assert norm.eps is not None
    return blocks.Norm(norm.weight, norm.eps)


def _modulations(transformer: FluxTransformer2DModel) -> list[nn.Linear]:
    found = []
    for block in transformer.transformer_blocks:
        found += [block.norm1.linear, block.norm1_context.linear]
    return found + [block.norm.linear for block in transformer.single_transformer_blocks]
