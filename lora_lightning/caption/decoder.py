"""Continuous batching: a fixed number of rows, each writing its own text; a row that ends takes the next picture.

Plain batched generation writes until the longest text of a batch ends, and launches some hundred small kernels a token
from Python. Here every row has its own position in one static cache of keys and values, so that a new prompt can move
into a row while the others go on (Yu et al. 2022, Orca, OSDI, section 4), and one token of all rows is a CUDA graph.

Shapes: B rows, k rows that begin, L tokens, C columns of the cache, H heads of keys and values, D of a head,
V vocabulary.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

log = logging.getLogger("lora_lightning")

COLUMNS = 128
"""The cache grows by multiples of this."""

MOST_ERROR = 0.02
"""Of a recorded step's scores against the same step unrecorded, as a share of the largest: bf16 rounds to 0.4 %."""


class RowsLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer (BHCD); row b writes its next token at column `position_B1[b]`."""

    def __init__(self, prompt: Any, rows: int, columns: int, position_B1: Tensor) -> None:
        super().__init__()
        self.position_B1 = position_B1
        self.rows_B1 = torch.arange(rows, device=position_B1.device)[:, None]
        _, heads, _, size = prompt.keys.shape
        # Zeros: what is masked counts with the weight 0, and 0 times whatever lies in memory may be NaN.
        self.keys = torch.zeros(rows, heads, columns, size, dtype=prompt.keys.dtype, device=position_B1.device)
        self.values = torch.zeros_like(self.keys)
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is left to do."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Store one token of every row (BH1D); returns all that is stored."""
        self.keys[self.rows_B1, :, self.position_B1] = key_states.transpose(1, 2)
        self.values[self.rows_B1, :, self.position_B1] = value_states.transpose(1, 2)
        return self.keys, self.values

    def move_in(self, rows: Tensor, prompt: Any) -> None:
        """Store what a prompt left behind (kHLD) in some rows."""
        length = prompt.keys.shape[2]
        self.keys[rows, :, :length] = prompt.keys
        self.values[rows, :, :length] = prompt.values

    def grow(self, columns: int) -> None:
        """Add columns."""
        shape = (*self.keys.shape[:2], columns - self.keys.shape[2], self.keys.shape[3])
        self.keys = torch.cat([self.keys, self.keys.new_zeros(shape)], dim=2)
        self.values = torch.cat([self.values, self.values.new_zeros(shape)], dim=2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns, and where they begin."""
        return self.keys.shape[2], 0

    def get_seq_length(self) -> int:
        """Unused: positions and masks are given."""
        return 0

    def get_max_length(self) -> int:
        """Columns."""
        return int(self.keys.shape[2])


class Decoder:
    """The rows on the device.

    Args:
        model: a LLaVA in `eval` mode.
        rows: how many texts are written at once.
        graph: whether to record one step as a CUDA graph; quantised layers cannot be recorded.
    """

    def __init__(self, model: PreTrainedModel, rows: int, *, graph: bool) -> None:
        self._model, self._rows, self._wants_graph = model, rows, graph and model.device.type == "cuda"
        self._token_B1 = torch.zeros(rows, 1, dtype=torch.long, device=model.device)
        self._position_B1 = torch.zeros_like(self._token_B1)
        self._columns_C = torch.zeros(0, dtype=torch.long, device=model.device)
        self._cache: Cache | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def begin(self, rows: Sequence[int], prompts: Sequence[BatchFeature], tokens: int) -> Tensor:
        """Read prompts of the same length into rows that are free.

        Args:
            rows: k of them.
            prompts: each with `input_ids` (1L) and `pixel_values`.
            tokens: the most that a row will write.

        Returns:
            The scores of the first token of each (kV).
        """
        inputs = {name: torch.cat([prompt[name] for prompt in prompts]) for name in ("input_ids", "pixel_values")}
        inputs = {name: tensor.to(self._model.device, non_blocking=True) for name, tensor in inputs.items()}
        inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        prompt_cache = DynamicCache()
        out = self._model(**inputs, past_key_values=prompt_cache, use_cache=True, logits_to_keep=1)
        length = inputs["input_ids"].shape[1]
        cache = self._make_room(length + tokens, prompt_cache)
        rows_k = torch.tensor(rows, device=self._model.device)
        for layer, prompt in zip(cache.layers, prompt_cache.layers, strict=True):
            layer.move_in(rows_k, prompt)
        self._position_B1[rows_k] = length
        logits_kV: Tensor = out.logits[:, -1]
        return logits_kV

    def write(self, token_k: Tensor, rows: Sequence[int] | None = None) -> None:
        """Set the token that some rows, or all, read next."""
        if rows is None:
            self._token_B1[:, 0] = token_k
        else:
            self._token_B1[torch.tensor(rows, device=token_k.device), 0] = token_k

    def step(self) -> Tensor:
        """Read one token in every row; returns the scores of the next (BV), valid until the next call."""
        if self._wants_graph and self._graph is None:
            self._record()
        if self._graph is None:
            logits_BV = self._forward()
        else:
            self._graph.replay()
            logits_BV = self._logits_BV
        # A row that has ended goes on in vain until a picture takes it; it must not leave the cache.
        self._position_B1.add_(1).clamp_(max=len(self._columns_C) - 1)
        return logits_BV

    def _forward(self) -> Tensor:
        mask_B11C = (self._columns_C <= self._position_B1)[:, None, None]
        out = self._model(
            input_ids=self._token_B1,
            position_ids=self._position_B1,
            attention_mask=mask_B11C,
            past_key_values=self._cache,
            use_cache=True,
        )
        logits_BV: Tensor = out.logits[:, -1]
        return logits_BV

    def _make_room(self, columns: int, prompt: DynamicCache) -> Cache:
        if self._cache is not None and columns <= len(self._columns_C):
            return self._cache
        columns = -(-columns // COLUMNS) * COLUMNS
        if self._cache is None:
            layers = [RowsLayer(layer, self._rows, columns, self._position_B1) for layer in prompt.layers]
            self._cache = Cache(layers=layers)
        else:
            for layer in self._cache.layers:
                layer.grow(columns)
        self._columns_C = torch.arange(columns, device=self._model.device)
        self._graph = None
        return self._cache

    def _record(self) -> None:
        """Record one step; what it writes, the replay that follows writes again.

        A step that cannot be recorded, or computes something else then, is taken unrecorded: slower, the same texts.
        """
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self._forward()  # libraries choose their kernels at the first call, which cannot be recorded
            expected_BV = self._forward().float()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads prepare pictures meanwhile; what they do is none of the graph's business.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._logits_BV = self._forward()
            graph.replay()
            error = (self._logits_BV.float() - expected_BV).abs().max() / expected_BV.abs().max()
            if not error < MOST_ERROR:
                raise RuntimeError(f"its scores would be off by {error:.1%}")
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as reason:
            log.warning("this captioner cannot be recorded as a CUDA graph: %s", str(reason).splitlines()[0])
            self._wants_graph = False
        else:
            self._graph = graph
