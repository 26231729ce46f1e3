"""Whether a written LoRA file does what was trained: read back by diffusers' own loader, and compared."""

from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from lora_lightning.errors import JobError
from lora_lightning.models.lora import TRAINED, adapted, base_weight, delta_OI, kind_of
from lora_lightning.models.lora_files.diffusers import load

SAVED = "saved"
"""The name under which the file's adapter is loaded; it stays beside the trained one, not active."""


def verify(pipeline: DiffusionPipeline, path: Path, dtype: torch.dtype, name: str = SAVED) -> float:
    """Load the file as anyone would, beside the trained adapter, and compare delta W of every linear.

    Args:
        pipeline: around the transformer with the trained adapter.
        path: the file.
        dtype: of the file's weights; their rounding is what may differ.
        name: of the adapter that the file is loaded as.

    Returns:
        The largest relative error |delta W_saved - delta W_trained| / |delta W_trained| (Frobenius norms); for DoRA
        relative to |W|.

    Raises:
        JobError: the file gives other weights than were trained, beyond the rounding of its number format.
    """
    transformer = pipeline.transformer
    load(pipeline, path, name)
    transformer.set_adapter(TRAINED)
    saved, trained = dict(adapted(transformer, name)), dict(adapted(transformer, TRAINED))
    if saved.keys() != trained.keys():
        lost = sorted(saved.keys() ^ trained.keys())
        raise _wrong(path, f"it holds {len(saved)} of {len(trained)} adapted layers (differs in {lost[0]})")
    worst = 0.0
    for module, layer in trained.items():
        delta = delta_OI(layer, TRAINED)
        size = delta.norm().item()
        # A DoRA's change is the difference of two weights, each rounded.
        scale = base_weight(layer).norm().item() if kind_of(layer) == "dora" else size
        error = (delta_OI(saved[module], name) - delta).norm().item()
        if not error <= scale * 4 * torch.finfo(dtype).eps:
            raise _wrong(path, f"{module} differs by {error:.3g} (its size is {size:.3g})")
        worst = max(worst, error / scale if scale else 0.0)
    return worst


def _wrong(path: Path, how: str) -> JobError:
    return JobError(
        f"the saved LoRA {path} is not what was trained: {how}",
        "Resume the run: it is saved again from the checkpoint.",
    )
