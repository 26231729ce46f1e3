"""A kind of block as a program for each level of what it keeps."""

import logging
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch._functorch.config as functorch_config
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from lora_lightning.models.fast.plan import Level

# It advises against operations in place, which here stand inside single operations, where it is none.
logging.getLogger("torch._higher_order_ops.wrap").addFilter(lambda record: "context_fn" not in record.getMessage())

_KEPT = {
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.lora_lightning.lowered.default,  # of a few numbers a token
}


class Programs:
    """`function`, a block, as a program that keeps for its backward pass what a level says; made when first asked for.

    Args:
        function: differentiable in its tensors.
        compile: fuse what it is made of.
    """

    def __init__(self, function: Callable[..., Any], compile: bool) -> None:
        self._function, self._compile = function, compile
        self.at = cache(self._at)

    def _at(self, level: Level) -> Callable[..., Any]:
        """The program; one that streams gets its weights from outside, so there it is the plain one."""
        if level is Level.ATTENTION:
            return self._made(_again(self._function, context_fn=_keeping_attention))
        if level is Level.EVERYTHING:
            return self._made(self._function)
        plain = self.at(Level.EVERYTHING)
        # Outside the program: inside it, torch 2.11 keeps what several values come out of.
        return _again(plain) if level is Level.INPUT else plain

    def _made(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _compiled(function) if self._compile else function


def computed_again(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What `function` gives, of which only the arguments are kept. It must draw nothing."""
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False, **options)


def _again(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    def again(*arguments: Any) -> Any:
        return computed_again(function, *arguments, **options)

    return again


def _policy(_context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE


_keeping_attention = partial(create_selective_checkpoint_contexts, _policy)


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
