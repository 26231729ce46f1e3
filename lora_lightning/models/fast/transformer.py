"""FLUX.1's transformer as training runs it, in place of diffusers' forward pass.

Shapes: B batch, L tokens, D features.
"""

import logging
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch._functorch.config as functorch_config
from diffusers import FluxTransformer2DModel, ModelMixin
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock, FluxTransformerBlock
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lora_lightning.models.fast import blocks
from lora_lightning.models.fast.linears import Linears, Stack, base_of, refresh
from lora_lightning.models.fast.modulation import Modulation
from lora_lightning.models.fast.scaled import ScaledLinears
from lora_lightning.models.fast.stored import StoredLinears
from lora_lightning.models.lora import TRAINED
from lora_lightning.models.quantize.fp8 import Fp8Linear


@dataclass(frozen=True)
class Plan:
    """How a training step is run.

    Attributes:
        compile: fuse what lies between the matrix products (torch.compile of the two kinds of block).
        dynamic: compile once for all numbers of tokens.
        keep_transposed: hold fp8 weights twice, as either product reads them.
        recompute: how many of the blocks keep only their inputs and are computed again in the backward pass.
    """

    compile: bool = False
    dynamic: bool = False
    keep_transposed: bool = False
    recompute: int = 0


log = logging.getLogger("lora_lightning")
LEAST_STEPS_COMPILED = 300
_BLOCK = re.compile(r"(single_)?transformer_blocks\.\d+")
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
        self.modulation = Modulation(_modulations(transformer), plan.compile)
        self._stacks = [stack for double in doubles for stream in double[:2] for stack in stream[:4]]
        self._stacks += [stack for single in singles for stack in single[:2]]
        self._double: Callable[..., Any] = _compiled(blocks.double) if plan.compile else blocks.double
        self._single: Callable[..., Any] = _compiled(blocks.single) if plan.compile else blocks.single

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

        for tensor, dimension in ((rope[0], 0), (rope[1], 0), (picture_BPD, 1)):
            self._mark(tensor, dimension)
        for index, block in enumerate(self._doubles):
            of_picture, of_text = modulations[2 * index : 2 * index + 2]
            text_BTD, picture_BPD = self._run(
                index, self._double, text_BTD, picture_BPD, of_text, of_picture, rope, block
            )
        x_BLD = torch.cat((text_BTD, picture_BPD), dim=1)
        self._mark(x_BLD, 1)
        for index, single in enumerate(self._singles, start=len(self._doubles)):
            x_BLD = self._run(index, self._single, x_BLD, modulations[len(self._doubles) + index], rope, single)
        return (model.proj_out(model.norm_out(x_BLD[:, tokens:], embedding_BD)),)

    def _stack(self, *layers: nn.Module) -> Stack:
        if isinstance(base_of(layers[0]), Fp8Linear):
            return ScaledLinears(layers, self.plan.keep_transposed)
        return Linears(layers) if type(base_of(layers[0])) is nn.Linear else StoredLinears(layers)

    def _mark(self, tensor: Tensor, dimension: int) -> None:
        if self.plan.dynamic:
            torch._dynamo.maybe_mark_dynamic(tensor, dimension)

    def _run(self, index: int, function: Callable[..., Any], *arguments: Any) -> Any:
        count = len(self._doubles) + len(self._singles)
        # Spread evenly: of any run of blocks the planned share is computed again.
        if (index + 1) * self.plan.recompute // count > index * self.plan.recompute // count:
            return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
        return function(*arguments)


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


def speed_up(transformer: ModelMixin, *, steps: int, recomputed: bool) -> bool:
    """Train on the fast path, compiled on a GPU; False, and a warning, where it cannot be.

    Args:
        transformer: frozen, with a trainable adapter.
        steps: how long it is trained; compiling takes as long as some hundred steps save.
        recomputed: keep only the blocks' inputs, and compute them again in the backward pass.
    """
    count = sum(1 for name, _ in transformer.named_modules() if _BLOCK.fullmatch(name)) if recomputed else 0
    compiled = next(transformer.parameters()).is_cuda and steps >= LEAST_STEPS_COMPILED
    if accelerate(transformer, Plan(compile=compiled, dynamic=True, recompute=count)):
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


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled so that the backward pass computes again whatever is elementwise, and without what the compiler says."""
    compiled: Callable[..., Any] = torch.compile(function, fullgraph=True)

    def call(*arguments: Any) -> Any:
        with (
            warnings.catch_warnings(),
            functorch_config.patch(
                ban_recompute_used_far_apart=False,
                ban_recompute_long_fusible_chains=False,
                ban_recompute_materialized_backward=False,
            ),
        ):
            for looked_at in (r"The \.grad attribute of a Tensor", ".*autograd.function.Function.* should not be inst"):
                warnings.filterwarnings("ignore", message=looked_at)
            return compiled(*arguments)

    return call


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
        qkv_up=stack(attn.to_q, attn.to_k, attn.to_v, block.proj_mlp),
        out=stack(block.proj_out),
        norm_q=_norm(attn.norm_q),
        norm_k=_norm(attn.norm_k),
        heads=attn.heads,
        features=attn.inner_dim,
    )


def _norm(norm: nn.RMSNorm) -> blocks.Norm:
    assert norm.eps is not None
    return blocks.Norm(norm.weight, norm.eps)


def _modulations(transformer: FluxTransformer2DModel) -> list[nn.Linear]:
    found = []
    for block in transformer.transformer_blocks:
        found += [block.norm1.linear, block.norm1_context.linear]
    return found + [block.norm.linear for block in transformer.single_transformer_blocks]
