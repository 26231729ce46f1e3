"""How to run a training on the card at hand: what is set is kept, and what is `auto` is chosen; needs no torch.

Of all settings whose prediction fits the fastest is taken, a rounded base only where it saves more than `WORTH` says.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Literal

from lora_lightning.models.fast.plan import Plan
from lora_lightning.models.memory import GIB, Load, Need, Setting, Storage, predict
from lora_lightning.models.speed import FP8_SINCE, seconds

Auto = Literal["auto"]
LEAST_STEPS_COMPILED = 300
"""Compiling takes as long as some hundred steps save."""
WORTH: dict[Storage, float] = {"none": 1.0, "int8": 1.05, "nf4": 1.5}
"""How many times as long an exact base may take before a rounded one is chosen by itself; fp8 never is: its effect on a
training to the end has not been shown to be none."""
STREAMED_WORTH = 1.15
"""The same before blocks are streamed: the way from the host is shared with what else the machine does."""
LEAST_BARE = 12
"""A block that keeps its input alone is whole again while it is computed again: fewer of them save nothing."""
LEVEL_STEP = 4
"""Amounts of recomputation that are tried together with streaming."""
CARDS = (8, 12, 16, 24, 32, 48, 80)
"""Sizes in GB that cards come in."""
RESERVE = 400 << 20
"""Bytes left alone: what else is on the card grows, and libraries allocate past torch."""
CONTEXT = 500 << 20
"""Bytes that CUDA itself takes for a process."""


@dataclass(frozen=True)
class Card:
    """A GPU: the bytes that this process can have of it, and its compute capability."""

    free: int
    capability: tuple[int, int] = (8, 9)

    @property
    def usable(self) -> int:
        """Bytes that may be planned with."""
        return max(0, self.free - RESERVE)


def card_of(gigabytes: int) -> Card:
    """One of this nominal size that nothing but a desktop uses: 22.5 of 24, 14.5 of 16, 10.8 of 12, 7.0 of 8 GiB."""
    used = {8: 1.0, 12: 1.2}.get(gigabytes, 1.5)
    return Card(round((gigabytes - used) * GIB) + RESERVE)


@dataclass(frozen=True)
class Asked:
    """What the recipe says.

    Attributes:
        quantize: how to store the base.
        recompute: all blocks, none, or so many.
        fast: the fast path.
        streamed: blocks in host memory.
        low_vram: true: as little memory as can be; false: a base that is not rounded.
        barred: why the fast path cannot be; empty where it can.
        storages: what this kind of adapter can stand on.
        compiled: whether the training is long enough to compile for.
        alone: whether one process trains.
    """

    quantize: Auto | Storage = "auto"
    recompute: Auto | bool | int = "auto"
    fast: Auto | bool = "auto"
    streamed: Auto | int = "auto"
    low_vram: Auto | bool = "auto"
    barred: tuple[str, ...] = ()
    storages: tuple[Storage, ...] = ("none", "int8", "fp8", "nf4")
    compiled: bool = True
    alone: bool = True


@dataclass(frozen=True)
class Choice:
    """A setting, what it is predicted to need (None on the CPU), and whether that may be planned with."""

    setting: Setting
    need: Need | None = None
    fits: bool = True


def as_set(asked: Asked, blocks: int) -> Choice:
    """Without a card to fit: plain blocks, all computed again, nothing rounded, unless it is set otherwise."""
    stored: Storage = "nf4" if asked.low_vram is True else "none" if asked.quantize == "auto" else asked.quantize
    fast = asked.fast is True and not asked.barred
    again = True if asked.low_vram is True or asked.recompute == "auto" else asked.recompute
    count = blocks if again is True or (again and not fast) else min(int(again), blocks)
    return Choice(Setting(stored, fast, plan=Plan(bare=count)))


@lru_cache(256)
def choose(load: Load, asked: Asked, card: Card) -> Choice:
    """The setting for a card; where nothing fits, the smallest."""
    found = [(setting, predict(load, setting)) for setting in _candidates(load, asked, card)]
    fitting = [setting for setting, need in found if need.total <= card.usable]
    if fitting:
        chosen = min(fitting, key=lambda setting: _cost(load, setting, asked, card))
        return Choice(chosen, predict(load, chosen))
    chosen, need = min(found, key=lambda pair: pair[1].total)
    return Choice(chosen, need, fits=False)


def smallest_card(load: Load, asked: Asked) -> int | None:
    """The least size in GB of a card that it fits; None for none."""
    return next((size for size in CARDS if choose(load, asked, card_of(size)).fits), None)


def _cost(load: Load, setting: Setting, asked: Asked, card: Card) -> tuple[float, int]:
    """Seconds, times how unwelcome rounding and streaming are where they were not asked for; then streamed blocks."""
    rounded = WORTH.get(setting.quantize, 1.0) if asked.quantize == "auto" else 1.0
    copied = STREAMED_WORTH if asked.streamed == "auto" and setting.plan.streamed else 1.0
    return seconds(load, setting, card.capability) * rounded * copied, setting.plan.streamed


def _candidates(load: Load, asked: Asked, card: Card) -> Iterator[Setting]:
    for base in _bases(asked, card):
        yield from _fitted(load, asked, card, base) if base.fast else _plain(load, asked, base)


def _bases(asked: Asked, card: Card) -> Iterator[Setting]:
    """How the base is stored and which path runs, with nothing spared yet."""
    fast = not asked.barred and asked.fast is not False
    compiled = fast and asked.compiled
    plan = Plan(compile=compiled, dynamic=compiled)
    for stored in _storages(asked):
        for graph in (True, False) if compiled and asked.alone else (False,):
            yield Setting(stored, fast, graph, plan)
            if stored == "fp8" and fast and card.capability >= FP8_SINCE:
                yield Setting(stored, fast, graph, replace(plan, keep_transposed=True))


def _storages(asked: Asked) -> tuple[Storage, ...]:
    if asked.low_vram is True:
        return ("nf4",)
    if asked.quantize != "auto":
        return (asked.quantize,)
    return ("none",) if asked.low_vram is False else tuple(each for each in WORTH if each in asked.storages)


def _plain(load: Load, asked: Asked, base: Setting) -> Iterator[Setting]:
    """The plain path computes all blocks again or none, and streams nothing."""
    again = True if asked.low_vram is True else asked.recompute
    if again == "auto" or not again:
        yield base
    if again == "auto" or again:
        yield replace(base, plan=replace(base.plan, bare=load.shape.blocks))


def _fitted(load: Load, asked: Asked, card: Card, base: Setting) -> Iterator[Setting]:
    """With as little computed again as fits; and with more of that, and as few streamed blocks as fit then."""

    def least(count: int, of: Callable[[int], Setting]) -> Setting:
        """The first of so many that fits, as do all after it; the last where none does."""
        place = bisect_left(range(count), True, key=lambda number: predict(load, of(number)).total <= card.usable)
        return of(min(place, count - 1))

    blocks = load.shape.blocks
    levels = [replace(base, plan=replace(base.plan, recompute=s, bare=b)) for s, b in _levels(asked, base, blocks)]
    count = 0 if asked.streamed == "auto" or base.quantize == "none" else min(asked.streamed, blocks)
    yield least(len(levels), lambda place: streamed(levels[place], count))
    if asked.streamed == "auto" and base.quantize != "none" and not base.graph:
        for setting in [*levels[::LEVEL_STEP], levels[-1]]:
            yield least(blocks + 1, partial(streamed, setting))


def _levels(asked: Asked, base: Setting, blocks: int) -> list[tuple[int, int]]:
    """How many blocks keep what attention gave, and how many not even that: the least computed again first.

    Bare blocks were not measured inside a graph.
    """
    again = True if asked.low_vram is True else asked.recompute
    count = blocks if again in ("auto", True) else min(int(again), blocks)
    spared = [(some, 0) for some in range(blocks)] if again == "auto" else []
    bare = [] if base.graph else [(count - some, some) for some in range(LEAST_BARE, count + 1)]
    return [*spared, (count, 0), *bare]


def streamed(setting: Setting, count: int) -> Setting:
    """With so many blocks in host memory: first those that are bare, then others. A graph replays no copies."""
    plan = setting.plan
    bare = max(0, plan.bare - count)
    spared = max(0, plan.recompute - max(0, count - plan.bare))
    graph = setting.graph and not count
    return replace(setting, graph=graph, plan=replace(plan, streamed=count, bare=bare, recompute=spared))
