"""A frozen base in shards: every process keeps a part of each block, and has the others' parts while it is at work.

FSDP2 is torch's `fully_shard`; the idea is of Rajbhandari et al. 2020 (ZeRO-3, arXiv 1910.02054). What is trained is a
thousandth of the base and stays whole in every process. So clipping, optimizers in 8 bit, the moving average and
checkpoints are those of one device, where Lightning's ModelParallelStrategy would write the whole base with each.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from diffusers import ModelMixin
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim import Optimizer

from lora_lightning.errors import InputError, JobError
from lora_lightning.models.device import isolated_rng
from lora_lightning.models.lora import ASSISTANT, TRAINED, adapted, weights_of
from lora_lightning.train.ranks import Ranks


class Sharded(DDPStrategy):
    """The processes of DDP around a module whose base is in shards; gradients are averaged once a step, in one go."""

    def configure_ddp(self) -> None:
        """The module stays as it is."""

    def optimizer_step(self, optimizer: Optimizer, closure: Callable[[], Any], *args: Any, **options: Any) -> Any:
        """Average behind the last backward pass: nothing of the shards is under way then."""

        def averaged() -> Any:
            loss = closure()
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            _average([weight.grad for weight in weights if weight.grad is not None])
            return loss

        return super().optimizer_step(optimizer, averaged, *args, **options)


def check(quantize: str, kind: str) -> None:
    """Refuse what cannot be in shards.

    Args:
        quantize: how the base is stored.
        kind: of adapter.

    Raises:
        InputError: one of them.
    """
    if quantize != "none":
        raise InputError(
            f"train.strategy=fsdp shares out the base as it is, but this run keeps it in {quantize}",
            "Set train.quantize=none and model.low_vram=false; or train.strategy=ddp.",
        )
    if kind == "dora":
        raise InputError(
            "train.strategy=fsdp cannot save a DoRA, which is measured against the whole base",
            "Set lora.kind=lora; or train.strategy=ddp.",
        )


def shard(transformer: ModelMixin, device: torch.device, ranks: Ranks) -> None:
    """Spread the base over the processes, block by block: none ever holds more than its part and one block.

    Args:
        transformer: with its adapters, in the RAM.
        device: of this process; the adapters come there whole.
        ranks: the processes.
    """
    mesh = init_device_mesh(device.type, (ranks.count,))
    layers = [(name, layer) for name in (TRAINED, ASSISTANT) for _, layer in adapted(transformer, name)]
    weights = [weight for name, layer in layers for weight in weights_of(layer, name).values()]
    whole = {weight for weight in weights if isinstance(weight, nn.Parameter)}
    for weight in whole:
        weight.data = weight.data.to(device)
    for part in (*transformer.transformer_blocks, *transformer.single_transformer_blocks, transformer):
        # The outermost part too, which would stay whole behind a pass without gradients, and not the same everywhere.
        fully_shard(part, mesh=mesh, reshard_after_forward=True, ignored_params=whole)


def main_alone(transformer: ModelMixin, ranks: Ranks, work: Callable[[], object]) -> None:
    """The main process works while the others wait; where the base is in shards, they join in each forward pass.

    Args:
        transformer: that the work may ask, with whatever adapters and inputs.
        ranks: the processes; all must call this.
        work: of the main process.

    Raises:
        JobError: a forward pass failed in its middle, where the others cannot be told.
        LoraLightningError: what the work met, in all processes.
    """
    if not ranks.sharded:
        ranks.main_only(work)
        return
    met: Exception | None = None
    if ranks.main:
        with _announced(transformer, ranks):
            try:
                work()
            except Exception as error:
                met = error
    else:
        _join_in(transformer, ranks)
    with ranks.together():
        if met:
            raise met


@contextmanager
def _announced(transformer: ModelMixin, ranks: Ranks) -> Iterator[None]:
    """Tell the others what goes into each forward pass, and at last that there is none any more."""
    under_way: list[ModelMixin] = []

    def before(module: ModelMixin, arguments: Any, options: Any) -> None:
        ranks.gather(move_data_to_device((arguments, options), torch.device("cpu")))
        under_way.append(module)

    def after(*_: Any) -> None:
        under_way.clear()

    # In front of the shards' own hook, which waits for the others.
    announcing = transformer.register_forward_pre_hook(before, prepend=True, with_kwargs=True)
    ending = transformer.register_forward_hook(after)
    try:
        yield
    finally:
        announcing.remove()
        ending.remove()
    if under_way:
        raise JobError(
            "a forward pass failed in its middle, and the processes that share the base cannot go on",
            "See the log for why; resume the run, with train.sample_every=0 if it was a sample.",
        )
    ranks.gather(None)


def _join_in(transformer: ModelMixin, ranks: Ranks) -> None:
    """Take part in the forward passes of the main process; what comes of them only it wants."""
    device = next(transformer.parameters()).device
    nothing: Any = None
    with torch.no_grad(), isolated_rng():
        while told := ranks.gather(nothing)[0]:
            arguments, options = move_data_to_device(told, device)
            transformer(*arguments, **options)


@torch.no_grad()
def _average(gradients: list[torch.Tensor]) -> None:
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients]).div_(dist.get_world_size())
    dist.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    torch._foreach_copy_(gradients, [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)])
