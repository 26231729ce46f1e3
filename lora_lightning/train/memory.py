"""When the device has too little memory: what would help, in the recipe's words."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from lora_lightning.errors import OutOfMemory


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
