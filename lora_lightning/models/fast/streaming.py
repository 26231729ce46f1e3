"""Blocks whose frozen weights wait in the host's memory and come to the device one block ahead of their use.

Two places on the device take turns: while a block computes in one, the next one's weights are copied into the other.
The copies run on a stream of their own from pinned memory, so they cost time only where they take longer than a block
does. Weights that are quantised travel as they are stored.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PLACES = 2
ALIGNMENT = 256


class _View(NamedTuple):
    """A tensor that reads some of a block's weights, and where in the block's bytes it begins."""

    tensor: Tensor
    offset: int
    size: torch.Size
    stride: tuple[int, ...]


class _Waiting(NamedTuple):
    """A block's weights as one row of bytes in the host's memory, and everything that reads them."""

    host: Tensor
    views: list[_View]


class Streaming:
    """Brings the weights of `blocks` to the device in turn.

    Args:
        blocks: of each block the tensors that hold or view its frozen weights. Their data is moved; they themselves
            stay, and show the weights from `bring` until another block takes their place.
        device: where they are used.
    """

    def __init__(self, blocks: Sequence[Sequence[Tensor]], device: torch.device) -> None:
        self._device = device
        self._waiting = [_take_out(tensors, device) for tensors in blocks]
        largest = max(block.host.numel() for block in self._waiting)
        self._places = [torch.empty(largest, dtype=torch.uint8, device=device) for _ in range(PLACES)]
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._ready: list[torch.cuda.Event | None] = [None] * PLACES
        self._held = [-1] * PLACES
        self._last = 0

    def bring(self, index: int) -> None:
        """Let the tensors of a block show its weights; the one after it, in the same direction, comes meanwhile."""
        place = self._fetch(index, avoiding=None)
        if self._copies:
            torch.cuda.current_stream().wait_event(self._ready[place])  # type: ignore[arg-type]
        row = self._places[place]
        for view in self._waiting[index].views:
            shown = torch.empty(0, dtype=view.tensor.dtype, device=self._device)
            start = view.offset // shown.element_size()
            view.tensor.data = shown.set_(row.untyped_storage(), start, view.size, view.stride)
        following = index + (1 if index > self._last or index == 0 else -1)
        self._last = index
        if 0 <= following < len(self._waiting):
            self._fetch(following, avoiding=place)

    def _fetch(self, index: int, avoiding: int | None) -> int:
        """Begin to copy a block's weights unless they are there; returns their place."""
        if index in self._held:
            return self._held.index(index)
        place = next(place for place in range(PLACES) if place != avoiding)
        host = self._waiting[index].host
        target = self._places[place][: host.numel()]
        self._held[place] = index
        if not self._copies:
            target.copy_(host)
            return place
        # What used the place before has been launched: the copy waits for it, not the host.
        self._copies.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._copies):
            target.copy_(host, non_blocking=True)
            self._ready[place] = self._copies.record_event()
        return place


@torch.no_grad()
def _take_out(tensors: Sequence[Tensor], device: torch.device) -> _Waiting:
    """Move what the tensors show into one row of bytes on the host, each storage once."""
    starts: dict[int, int] = {}
    storages, views, total = [], [], 0
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in starts:
            starts[storage.data_ptr()] = total
            storages.append((total, storage))
            total += -(-storage.nbytes() // ALIGNMENT) * ALIGNMENT
        offset = starts[storage.data_ptr()] + int(tensor.storage_offset()) * tensor.element_size()
        views.append(_View(tensor, offset, tensor.size(), tensor.stride()))
    host = torch.empty(total, dtype=torch.uint8, pin_memory=device.type == "cuda")
    for start, storage in storages:
        whole = torch.empty(0, dtype=torch.uint8, device=device).set_(storage)
        host[start : start + storage.nbytes()].copy_(whole)
    for view in views:
        view.tensor.data = torch.empty(0, dtype=view.tensor.dtype, device=device)
    return _Waiting(host, views)
