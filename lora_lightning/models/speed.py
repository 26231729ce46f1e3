"""How long a training step takes, well enough to tell the faster of two settings; importing this needs no torch.

Arithmetic (products of the frozen linears forward and for the input's gradient, attention with 2.5 times its forward
pass for its gradient), what moves through the card's memory, what comes from the host's, and what the host needs to
launch the kernels. Sources: the profiles and rows in benchmarks/results/gpu_train*.json, of an H100.
"""

from dataclasses import dataclass

from lora_lightning.models.memory import Load, Setting, block_bytes

MATRIX, FP8, ATTENTION = 0.65, 1.6, {True: 0.5, False: 0.26}
"""Shares of the published bf16 rate: matrix products, fp8's times those, attention on the fast path and off it."""
MEMORY = 0.9
"""Share of the published bandwidth."""
ELEMENTWISE = {"compiled": 125, "plain": 560}
"""Numbers that move, in D a token and block, for what is neither a product nor attention."""
LAUNCH = {"graph": 0.02, "compiled": 0.26, "plain": 0.48}
"""Seconds that the host launches kernels for at least."""
BETWEEN = 0.012
"""Seconds between the kernels of a step, on the card."""
UNGRAPHED = 1.02
"""Times the same as a graph takes, where the host keeps up."""
WIDENING = {"int8": 13.5, "fp8": 13.5, "nf4": 8.5}
"""Bytes that move to widen a stored weight, each time it is multiplied."""
TRANSPOSING = 16.0
"""Bytes that move to transpose an fp8 weight, once a step."""
ADAPTER = 40
"""Bytes that move for each trained weight: copied, clipped, updated."""


@dataclass(frozen=True)
class Rates:
    """What a kind of card is published to do a second: bf16 operations, bytes of its memory, bytes from the host."""

    operations: float
    memory: float
    host: float = 25e9


RATES = {
    (8, 0): Rates(312e12, 2.0e12),
    (8, 6): Rates(71e12, 0.94e12),
    (8, 9): Rates(165e12, 1.0e12),
    (9, 0): Rates(989e12, 3.35e12, 50e9),
    (10, 0): Rates(2250e12, 8.0e12, 50e9),
    (12, 0): Rates(210e12, 1.8e12, 50e9),
}
"""By compute capability: A100, RTX 3090, RTX 4090, H100, B200, RTX 5090."""
FP8_SINCE = (8, 9)


def rates_of(capability: tuple[int, int]) -> Rates:
    """Of the newest card that is known and not newer."""
    known = [version for version in RATES if version <= capability]
    return RATES[max(known)] if known else Rates(50e12, 0.5e12, 12e9)


def seconds(load: Load, setting: Setting, capability: tuple[int, int]) -> float:
    """Of one forward and backward pass."""
    shape, plan, rates = load.shape, setting.plan, rates_of(capability)
    bare, spared = (plan.bare + plan.streamed) / shape.blocks, plan.recompute / shape.blocks
    tokens = load.tokens * load.batch * load.passes
    each = (2 * shape.doubles + shape.singles) * shape.stream
    in_fp8 = multiplies(setting, capability)
    # A token of a double block meets the weights of its own stream only.
    linear = 2 * shape.blocks * shape.stream * tokens / (rates.operations * MATRIX * (FP8 if in_fp8 else 1))
    attention = 4 * load.tokens * tokens * shape.width * shape.blocks / (rates.operations * ATTENTION[setting.fast])
    products, scores = 2 + spared + bare, 3.5 + bare
    kind = "compiled" if plan.compile else "plain"
    longer = 1 + (bare + spared) / 3
    moved = ELEMENTWISE[kind] * longer * load.number * shape.width * tokens * shape.blocks
    moved += block_bytes(shape, setting, load.number).modulation + ADAPTER * load.adapter.weights
    if setting.quantize != "none" and not in_fp8:
        moved += WIDENING[setting.quantize] * products * each
    elif in_fp8 and not plan.keep_transposed:
        moved += TRANSPOSING * each
    on_card = BETWEEN + linear * products + attention * scores + moved / (rates.memory * MEMORY)
    launched = LAUNCH["graph" if setting.graph else kind] * longer
    on_card *= 1 if setting.graph else UNGRAPHED
    forward = linear + attention
    return max(on_card + _waiting(load, setting, rates, forward, on_card - forward), launched)


def multiplies(setting: Setting, capability: tuple[int, int]) -> bool:
    """Whether the products themselves are made in fp8."""
    return setting.quantize == "fp8" and setting.fast and capability >= FP8_SINCE


def _waiting(load: Load, setting: Setting, rates: Rates, forward: float, backward: float) -> float:
    """For streamed blocks: each comes once for either pass, while others are computed."""
    shape, streamed = load.shape, setting.plan.streamed
    held = block_bytes(shape, setting, load.number)
    copied = streamed * (shape.doubles * held.double + shape.singles * held.single) / shape.blocks / rates.host
    return max(0.0, copied - forward) + max(0.0, copied - backward)
