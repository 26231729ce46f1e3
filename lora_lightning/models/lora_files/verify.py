"""Whether a written LoRA file does what was trained: read back by diffusers' own loader, and compared."""

from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from lora_lightning.errors import JobError
from lora_lightning.models.lora import TRAINED, adapters
from lora_lightning.models.lora_files.diffusers import load

SAVED = "saved"
"""The name under which the file's adapter is loaded; it stays beside the trained one, not active."""


def verify(pipeline: DiffusionPipeline, path: Path, dtype: torch.dtype) -> float:
    """Load the file as anyone would, beside the trained adapter, and compare delta W of every linear.

    Args:
        pipeline: around the transformer with the trained adapter.
        path: the file.
        dtype: of the file's weights; their rounding is what may differ.

    Returns:
        The largest relative error |delta W_saved - delta W_trained| / |delta W_trained| (Frobenius norms).

    Raises:
        JobError: the file gives other weights than were trained, beyond the rounding of its number format.
    """
    transformer = pipeline.transformer
    load(pipeline, path, SAVED)
    transformer.set_adapter(TRAINED)
    saved = {adapter.module: adapter for adapter in adapters(transformer, SAVED)}
    trained = {adapter.module: adapter for adapter in adapters(transformer, TRAINED)}
    if saved.keys() != trained.keys():
        lost = sorted(saved.keys() ^ trained.keys())
        raise _wrong(path, f"it holds {len(saved)} of {len(trained)} adapted layers (differs in {lost[0]})")
    worst = 0.0
    for module, adapter in trained.items():
        delta = adapter.delta_OI()
        size = delta.norm().item()
        error = (saved[module].delta_OI() - delta).norm().item()
        if not error <= size * 4 * torch.finfo(dtype).eps:
            raise _wrong(path, f"{module} differs by {error:.3g} (its size is {size:.3g})")
        worst = max(worst, error / size if size else 0.0)
    return worst


def _wrong(path: Path, how: str) -> JobError:
    return JobError(
        f"the saved LoRA {path} is not what was trained: {how}",
        "Resume the run: it is saved again from the checkpoint.",
    )
