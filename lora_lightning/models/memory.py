"""What a training step takes of the GPU's memory, by arithmetic; importing this needs no torch.

What is counted follows from the model's configuration; what is not (how many numbers the compiler keeps, how much a
block works with) was measured, and each constant names the rows of benchmarks/results it comes from.

Symbols: D width of the transformer, L tokens of a forward pass: text and picture, of every picture of a batch.
"""

from dataclasses import dataclass
from typing import Literal

from lora_lightning.models.fast.plan import Plan
from lora_lightning.models.shape import Shape

Storage = Literal["none", "int8", "fp8", "nf4"]
GIB = 2**30

STORED = {"int8": 1.0, "fp8": 1.0, "nf4": 0.5 + 1 / 64}
"""Bytes of a weight in the blocks; nf4 has a scale of 8 bits for each 64."""
NF4_SCALES = 4 / 64
"""Of a weight: the fast path holds nf4's scales in fp32 beside them."""
STATE = {"adamw": 8, "adamw8bit": 2, "paged_adamw8bit": 2, "prodigy": 16, "adafactor": 1, "lion": 4, "lion8bit": 1}
"""Bytes of an optimizer's state for each weight it trains."""
STACKED = 1.35
"""The fast path's copies of A and B, in numbers for each of theirs: B of stacked linears is mostly zeros."""

KEPT = {"compiled": 6.9, "plain": 17.3}
"""Numbers kept for the backward pass, a token and block, in D, beside the outputs of the feed-forward's first linear:
rows at three sizes with nothing computed again."""
SPARED = 2.0
"""The same of a block that keeps its input and what attention gave."""
WORKING = {"compiled": 15.0, "plain": 25.0}
"""Numbers that a backward pass works with in one block, a token, in D: rows with every block computed again. One that
kept its input alone holds all that it keeps otherwise, beside them."""
WIDENED = 3
"""A stored base is widened, or fp8 transposed, stack by stack: so many copies of the largest exist at a time."""
PLACES = 2
"""Streamed blocks that are on the GPU at a time: one at work, one on its way."""
DECODED = 2450
"""Bytes that the VAE works with for each pixel of a sample, in bf16: rows `VAE bf16`."""
VAE_WEIGHTS = 84_000_000
SLACK = {True: 0.10, False: 0.06}
"""What the allocator holds beyond what tensors take, as a share, with a graph and without: reserved_gib against
peak_gib."""


@dataclass(frozen=True)
class Adapter:
    """What is learned: so many numbers, the bytes of the optimizer's state for each, and whether they are averaged."""

    weights: int
    state: float = 8
    averaged: bool = False


@dataclass(frozen=True)
class Load:
    """What is trained, in whatever way it is held and run.

    Attributes:
        shape: of the transformer.
        adapter: on it.
        tokens: of the largest picture with its text.
        batch: pictures of a forward pass.
        passes: forward passes of a step that are differentiated together.
        number: bytes of a number of the base.
        drawn: pixels of the largest sample.
    """

    shape: Shape
    adapter: Adapter
    tokens: int
    batch: int = 1
    passes: int = 1
    number: int = 2
    drawn: int = 0


@dataclass(frozen=True)
class Setting:
    """How the base is held and a step is run.

    Attributes:
        quantize: how the linears of the blocks are stored.
        fast: whether by the fast path; the plain one computes all blocks again (`bare`) or none.
        graph: whether a step is replayed as one CUDA graph.
        plan: of the blocks.
    """

    quantize: Storage = "none"
    fast: bool = False
    graph: bool = False
    plan: Plan = Plan()  # noqa: RUF009 - frozen

    @property
    def spared(self) -> int:
        """Blocks that are computed again."""
        return self.plan.recompute + self.plan.bare + self.plan.streamed


@dataclass(frozen=True)
class Need:
    """Bytes on the GPU, by part, and in host memory.

    Attributes:
        weights: of the base that rest on the GPU, and places for streamed ones.
        adapter: with gradients, optimizer, average and copies.
        kept: activations for the backward pass.
        working: of the block in hand, its recomputation and widened weights included.
        drawing: of a sample, while nothing is kept.
        slack: what the allocator holds beyond that.
        loading: before the first step, when streamed blocks have not left the GPU yet.
        host: pinned for streamed blocks.
    """

    weights: int
    adapter: int
    kept: int
    working: int
    drawing: int
    slack: int
    loading: int
    host: int

    @property
    def peak(self) -> int:
        """The most that tensors take in a training step."""
        return self.weights + self.adapter + self.kept + self.working

    @property
    def total(self) -> int:
        """The most that the process takes, loading, steps and samples alike."""
        return max(self.loading, self.peak + max(0, self.drawing - self.kept - self.working) + self.slack)


def predict(load: Load, setting: Setting) -> Need:
    """What a training takes."""
    shape, plan, kind = load.shape, setting.plan, "compiled" if setting.plan.compile else "plain"
    vector = load.number * shape.width * load.tokens * load.batch
    kept = (shape.blocks - setting.spared) * (KEPT[kind] + shape.wide) + plan.recompute * SPARED
    kept = (kept + plan.bare + plan.streamed) * vector * load.passes
    working = vector * (WORKING[kind] + (KEPT[kind] + shape.wide if plan.bare + plan.streamed else 0))
    if setting.quantize != "none" and not plan.keep_transposed:
        working += WIDENED * load.number * (1 + shape.narrow) * shape.width**2
    held = block_bytes(shape, setting, load.number)
    double = shape.doubles * plan.streamed // shape.blocks  # they are spread evenly, and double blocks come first
    away = double * held.double + (plan.streamed - double) * held.single
    places = min(PLACES, plan.streamed) * (held.double if double else held.single)
    weights = shape.doubles * held.double + shape.singles * held.single + held.modulation + load.number * shape.rest
    adapter = _adapter(load, setting)
    slack = SLACK[setting.graph] * (weights - away + places + adapter + kept + working)
    drawing = _drawing(load, working)
    loading = weights + load.adapter.weights * (4 + STACKED * load.number)
    parts = (weights - away + places, adapter, kept, working, drawing, slack, loading, away)
    return Need(*(round(part) for part in parts))


@dataclass(frozen=True)
class Held:
    """Bytes of one double block's and one single block's weights that work on tokens, and of all the modulation's."""

    double: float
    single: float
    modulation: float


def block_bytes(shape: Shape, setting: Setting, number: int = 2) -> Held:
    """Of the stored base; fp8 keeps the modulation in int8, and nf4 without the fast path's scales."""
    each = STORED.get(setting.quantize, number)
    seen = each
    if setting.quantize == "nf4" and setting.fast:
        seen += NF4_SCALES
    if setting.quantize == "fp8" and setting.plan.keep_transposed:
        seen *= 2
    return Held(2 * seen * shape.stream, seen * shape.stream, each * shape.modulation)


def _adapter(load: Load, setting: Setting) -> float:
    """Weights and gradients in fp32; a graph writes gradients of its own, which it hands out as these."""
    adapter = load.adapter
    each = 8 + adapter.state + (4 if adapter.averaged else 0) + (4 if setting.graph else 0)
    return adapter.weights * (each + (STACKED * load.number if setting.fast else 0))


def _drawing(load: Load, working: float) -> float:
    """Either the denoising, a forward pass that keeps nothing, or the VAE."""
    if not load.drawn:
        return 0
    tokens = load.drawn / 256 + load.shape.text_tokens
    denoising = working * tokens / (load.tokens * load.batch)
    return load.number * VAE_WEIGHTS + max(denoising, DECODED * load.number / 2 * load.drawn)
