"""When the device has too little memory: what would help, in the recipe's words."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from lora_lightning.errors import OutOfMemory


def relief(
    *,
    batch_size: int,
    accumulate: int,
    recomputed: bool,
    quantized: bool,
    resolutions: Sequence[int],
    optimizer: str,
) -> list[str]:
    """Settings that would take less memory, those that cost the least first.

    Args:
        batch_size: of a forward pass.
        accumulate: forward passes of a step.
        recomputed: whether activations are.
        quantized: whether the base is.
        resolutions: pixels.
        optimizer: by name.
    """
    found = []
    if batch_size > 1:
        found.append(f"train.batch_size=1 train.accumulate={batch_size * accumulate}")
    if not recomputed:
        found.append("train.gradient_checkpointing=true")
    if optimizer in ("adamw", "prodigy", "lion"):
        found.append("train.optimizer=adamw8bit")
    if not quantized:
        found.append("model.low_vram=true")
    if len(resolutions) > 1 or resolutions[0] > 512:
        found.append(f"dataset.resolutions=[{min(512, *resolutions)}]")
    return found or ["lora.rank=8", "lora.targets=attention"]


@contextmanager
def explained(run: str, settings: Sequence[str]) -> Iterator[None]:
    """Name the settings that would help when the memory runs out; the last checkpoint is untouched.

    Raises:
        OutOfMemory: it ran out.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        told = (str(error).splitlines() or ["the machine has no memory left"])[0]
        raise OutOfMemory(
            f"out of memory while training: {told}",
            f"If something else used the memory, `runs resume {run}` goes on. Otherwise begin a new run from the last "
            f"weights with less: `runs clone {run} lora.init_from={run} {settings[0]}`"
            + (f"; then {', then '.join(settings[1:])}." if settings[1:] else "."),
        ) from error
