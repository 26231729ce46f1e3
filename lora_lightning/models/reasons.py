"""Why a plan is as it is, one line for each choice; importing this needs no torch."""

from dataclasses import replace

from lora_lightning.models.memory import GIB, Load, Storage, predict
from lora_lightning.models.planner import LEAST_STEPS_COMPILED, Asked, Card, Choice, choose
from lora_lightning.models.speed import seconds

NAMES: dict[Storage, str] = {"none": "bf16", "int8": "int8", "fp8": "fp8", "nf4": "4 bit (nf4)"}


def reasons(load: Load, asked: Asked, card: Card | None, choice: Choice) -> list[str]:
    """In the order of the choices: the base, the path, recomputation, streaming, and the memory that it takes."""
    lines = [_base(load, asked, card, choice), _path(asked, card, choice), _again(load, asked, card, choice)]
    plan, need = choice.setting.plan, choice.need
    if plan.streamed and need:
        lines.append(f"{plan.streamed} of {load.shape.blocks} blocks wait in host memory ({_gib(need.host)})")
    if need and card:
        fits = "" if choice.fits else ", and nothing smaller is known"
        lines.append(f"needs about {_gib(need.total)} of {_gib(card.usable)} usable{fits}")
    return lines


def _base(load: Load, asked: Asked, card: Card | None, choice: Choice) -> str:
    stored = choice.setting.quantize
    name = f"base in {NAMES[stored] if stored != 'none' or load.number == 2 else 'fp32'}"
    if asked.low_vram is True:
        return f"{name}: model.low_vram asks for the least memory"
    if asked.quantize != "auto":
        return f"{name}: as set"
    if not card:
        return f"{name}: there is no GPU to fit"
    if stored == "none":
        return f"{name}: it is exact, and a rounded one would not pay"
    exact = choose(load, replace(asked, quantize="none"), card)
    if not exact.fits:
        return f"{name}: in bf16 nothing fits {_gib(card.usable)}"
    slower = seconds(load, exact.setting, card.capability) / seconds(load, choice.setting, card.capability)
    return f"{name}: in bf16 a step would take {slower:.1f} times as long on this card"


def _path(asked: Asked, card: Card | None, choice: Choice) -> str:
    setting = choice.setting
    if not setting.fast:
        why = f"not with this {' and '.join(asked.barred)}" if asked.barred else "train.fast is not set"
        return f"plain blocks: {why if card else 'there is no GPU'}"
    if not setting.plan.compile:
        few = f"fewer than {LEAST_STEPS_COMPILED} steps are too few to compile for"
        why = few if card else "nothing is compiled on a CPU"
        return f"fused blocks: {why}"
    graph = ", each step replayed as one CUDA graph" if setting.graph else ""
    return f"fused and compiled blocks{graph}: the fastest that fits"


def _again(load: Load, asked: Asked, card: Card | None, choice: Choice) -> str:
    setting, blocks = choice.setting, load.shape.blocks
    plan = setting.plan
    count = setting.spared
    told = f"{count} of {blocks} blocks computed again" if count else "nothing computed again"
    if plan.recompute:
        told += f", {plan.recompute} of them but for their attention"
    if asked.low_vram is True or asked.recompute != "auto" or not card:
        return f"{told}: {'as set' if asked.low_vram is True or asked.recompute != 'auto' else 'the usual on a CPU'}"
    whole = predict(load, replace(setting, plan=replace(plan, recompute=0, bare=0, streamed=0))).total
    return f"{told}: kept whole they take {_gib(whole)}" if count else f"{told}: all fits"


def _gib(amount: float) -> str:
    return f"{amount / GIB:.1f} GiB"
