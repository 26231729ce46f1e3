"""Forward and backward pass as one CUDA graph: the host says one word instead of launching thousands of kernels.

A graph replays kernels on fixed addresses, so there is one for each shape of a batch. They share one pool of memory:
the largest decides how much that is. The steps that rehearse a shape take what they keep from there too.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

WARM_UP = 2
MOST_GRAPHS = 16
"""More shapes than this run as they are: capturing takes seconds."""


class GraphedLoss:
    """Computes losses so that `backward` only hands out gradients that were computed with them.

    Args:
        losses: of a batch, a nested tuple of tensors on the device and of values that do not matter to it; the first
            tensor of what it gives is differentiated, and it must not wait for the device.
        parameters: by which.
    """

    def __init__(self, losses: Callable[..., Any], parameters: Sequence[nn.Parameter]) -> None:
        self._losses, self._parameters = losses, list(parameters)
        self._gradients = [torch.empty_like(parameter) for parameter in parameters]
        self._graphs: dict[str, _Captured] = {}
        self._pool = torch.cuda.MemPool()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._anchor = torch.zeros((), device=self._gradients[0].device, requires_grad=True)

    def __call__(self, batch: Any) -> Any:
        """The losses of a batch."""
        if not torch.is_grad_enabled():
            return self._losses(batch)
        leaves, structure = pytree.tree_flatten(batch)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        key = f"{structure} {[tuple(tensor.shape) for tensor in tensors]}"
        if key not in self._graphs:
            if len(self._graphs) >= MOST_GRAPHS:
                return self._losses(batch)
            self._graphs[key] = self._capture(leaves, structure)
        captured = self._graphs[key]
        torch._foreach_copy_(captured.inputs, tensors)
        captured.graph.replay()
        first, *others = (tensor.clone() for tensor in captured.outputs)
        first = _HandOut.apply(first, self, self._anchor)  # type: ignore[no-untyped-call]
        return pytree.tree_unflatten([first, *others], captured.structure)

    def release(self) -> None:
        """Give the graphs' memory back; they are captured again when needed."""
        self._graphs.clear()
        torch.cuda.empty_cache()

    def hand_out(self, scale: Tensor) -> None:
        """Add the gradients, times `scale`, to those that the parameters have."""
        gradients = torch._foreach_mul(self._gradients, scale)
        if self._parameters[0].grad is not None:
            held = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
            torch._foreach_add_(held, list(gradients))
            return
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient

    def _capture(self, leaves: Sequence[Any], structure: pytree.TreeSpec) -> "_Captured":
        held = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        batch = pytree.tree_unflatten(held, structure)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream), torch.cuda.use_mem_pool(self._pool):
            for _ in range(WARM_UP):  # compiles, and lets libraries allocate what they need
                self._step(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # On the stream of the rehearsal: memory that one stream let go serves no other.
        with torch.cuda.graph(graph, pool=self._pool.id, stream=self._stream):  # type: ignore[arg-type]
            outputs, shape = pytree.tree_flatten(self._step(batch))
        return _Captured(graph, [leaf for leaf in held if isinstance(leaf, Tensor)], outputs, shape)

    def _step(self, batch: Any) -> Any:
        losses = self._losses(batch)
        leaves, structure = pytree.tree_flatten(losses)
        gradients = torch.autograd.grad(leaves[0], self._parameters)
        torch._foreach_copy_(self._gradients, list(gradients))
        return pytree.tree_unflatten([leaf.detach() for leaf in leaves], structure)


def use_graphs(module: Any, parameters: Sequence[nn.Parameter]) -> None:
    """Let `module.losses(batch)` be a graph from now on."""
    vars(module)["losses"] = GraphedLoss(module.losses, parameters)


def release_graphs(module: Any) -> None:
    """Give the memory of its graphs back, if it has any: what draws needs it meanwhile."""
    graphed = vars(module).get("losses")
    if isinstance(graphed, GraphedLoss):
        graphed.release()


class _Captured(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: list[Tensor]
    structure: pytree.TreeSpec


class _HandOut(torch.autograd.Function):
    """The loss, and gradients that are there already.

    They are put where they belong by hand: autograd's own nodes for the parameters would tie every later capture to the
    stream that they were made on.
    """

    @staticmethod
    def forward(ctx: Any, loss: Tensor, graphed: GraphedLoss, _: Tensor) -> Tensor:
        ctx.graphed = graphed
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        ctx.graphed.hand_out(scale)
        return None, None, None
