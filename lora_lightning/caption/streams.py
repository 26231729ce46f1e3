"""Requests in, answers out: continuously, or by the batch for captioners that cannot do better."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby

import torch
from transformers import BatchFeature

from lora_lightning.caption.base import Answer, Captioner, End, Request, Stream, Streaming, Told
from lora_lightning.caption.decoder import Decoder
from lora_lightning.caption.loops import runs_in_circles
from lora_lightning.caption.noise import Chooser, choose

STEPS = 4
"""Tokens between two looks at what was written; each look waits for the device."""

BEGIN_AT_ONCE = 8
"""Prompts that are read together, at most: they take far more memory than writing does."""


def open_stream(captioner: Captioner | Streaming, size: int) -> Stream:
    """The best stream that a captioner offers."""
    return captioner.stream(size) if isinstance(captioner, Streaming) else Batches(captioner, size)


class Batches:
    """A captioner that describes whole batches."""

    def __init__(self, captioner: Captioner, size: int) -> None:
        self._captioner, self._size = captioner, size
        self._waiting: dict[int, Request] = {}

    @property
    def free(self) -> int:
        """How many more requests it takes now."""
        return self._size - len(self._waiting)

    @property
    def keys(self) -> list[int]:
        """The requests that it has not answered."""
        return list(self._waiting)

    def put(self, key: int, request: Request) -> None:
        """Take a request."""
        self._waiting[key] = request

    def step(self) -> list[Told]:
        """Describe what waits; requests that sample in another way have to wait for the next step."""
        sampling = next(iter(self._waiting.values())).sampling
        batch = {key: request for key, request in self._waiting.items() if request.sampling == sampling}
        answers = self._captioner.describe(list(batch.values()))
        self._waiting = {key: request for key, request in self._waiting.items() if key not in batch}
        return [Told(key, answer) for key, answer in zip(batch, answers, strict=True)]

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class _Row:
    """A text in the making."""

    key: int
    request: Request
    chooser: Chooser
    ids: list[int] = field(default_factory=list)
    end: End | None = None

    def hear(self, token: int, stops: Sequence[int]) -> None:
        """Add a token, unless the text has ended."""
        if self.end:
            return
        if token in stops:
            self.end = "done"
            return
        self.ids.append(token)
        if len(self.ids) == self.request.sampling.max_tokens:
            self.end = "cut"


@dataclass(frozen=True)
class _Prompt:
    """A request whose picture is being prepared beside the device's work."""

    key: int
    request: Request
    inputs: Future[BatchFeature]


def _length(prompt: _Prompt) -> int:
    return int(prompt.inputs.result()["input_ids"].shape[1])


class Rows:
    """Describes pictures in the rows of a Decoder.

    Args:
        decoder: the rows on the device.
        size: how many they are.
        prepare: the model's inputs for one request.
        read: the text of tokens.
        stops: tokens that end a text.
    """

    def __init__(
        self,
        decoder: Decoder,
        size: int,
        prepare: Callable[[Request], BatchFeature],
        read: Callable[[Sequence[int]], str],
        stops: Sequence[int],
        device: torch.device,
    ) -> None:
        self._decoder, self._size, self._prepare, self._read, self._stops = decoder, size, prepare, read, stops
        self._device = device
        self._pool = ThreadPoolExecutor(2)
        self._waiting: list[_Prompt] = []
        self._rows: dict[int, _Row] = {}

    @property
    def free(self) -> int:
        """How many more requests it takes now; as many as there are rows are prepared ahead."""
        return 2 * self._size - len(self.keys)

    @property
    def keys(self) -> list[int]:
        """The requests that it has not answered."""
        return [row.key for row in self._rows.values()] + [prompt.key for prompt in self._waiting]

    def put(self, key: int, request: Request) -> None:
        """Take a request, and begin to prepare its picture."""
        self._waiting.append(_Prompt(key, request, self._pool.submit(self._prepare, request)))

    @torch.inference_mode()
    def step(self) -> list[Told]:
        """Write until a text ends."""
        told: list[Told] = []
        while not told and self.keys:
            self._begin()
            told = self._ended()
            if not told:
                self._go_on()
                told = self._ended()
        return told

    def close(self) -> None:
        """Stop preparing."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        """Move prompts into free rows; a quarter of the rows at once, since the others wait meanwhile."""
        while self._waiting:
            free = [row for row in range(self._size) if row not in self._rows]
            if not free or (self._rows and len(free) < self._size // 4):
                return
            most = min(len(free), BEGIN_AT_ONCE)
            _, alike = next(groupby(self._waiting[:most], key=_length))
            self._move_in(free, list(alike))

    def _move_in(self, free: Sequence[int], prompts: Sequence[_Prompt]) -> None:
        rows = list(free[: len(prompts)])
        inputs = [prompt.inputs.result() for prompt in prompts]
        tokens = max(prompt.request.sampling.max_tokens for prompt in prompts) + STEPS
        logits_kV = self._decoder.begin(rows, inputs, tokens)
        begun = [_Row(prompt.key, prompt.request, Chooser.of(prompt.request, self._device)) for prompt in prompts]
        token_k = choose(logits_kV, {place: row.chooser for place, row in enumerate(begun)})
        self._decoder.write(token_k, rows)
        for row, token in zip(begun, token_k.tolist(), strict=True):
            row.hear(token, self._stops)
        self._rows |= zip(rows, begun, strict=True)
        self._waiting = self._waiting[len(prompts) :]

    def _go_on(self) -> None:
        """Write some tokens in every row, then look at them."""
        choosers = {number: row.chooser for number, row in self._rows.items()}
        steps = []
        for _ in range(STEPS):
            token_B = choose(self._decoder.step(), choosers)
            self._decoder.write(token_B)
            steps.append(token_B)
        for tokens in torch.stack(steps).tolist():
            for number, row in self._rows.items():
                row.hear(tokens[number], self._stops)
        for row in self._rows.values():
            if row.end != "done" and runs_in_circles(row.ids):
                row.end = "looped"

    def _ended(self) -> list[Told]:
        ended = {number: row for number, row in self._rows.items() if row.end}
        self._rows = {number: row for number, row in self._rows.items() if not row.end}
        return [Told(row.key, Answer(self._read(row.ids), row.end)) for row in ended.values() if row.end]
