"""Pictures and texts in one space, by any CLIP-style model that transformers' AutoModel opens."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

from lora_lightning.errors import ModelError
from lora_lightning.evaluate.config import PUBLISHED
from lora_lightning.evaluate.measures import Array, unit
from lora_lightning.models.config import EMBEDDED
from lora_lightning.models.hub import fetch

BATCH = 32
FILES = ["*.json", "*.txt", "*.safetensors"]


class Encoder:
    """A CLIP-style model on a device."""

    def __init__(self, source: Path, device: torch.device) -> None:
        """Open a folder.

        Raises:
            ModelError: it cannot be opened.
        """
        try:
            self._processor = AutoProcessor.from_pretrained(source)
            self._model = AutoModel.from_pretrained(source, dtype=torch.float32).to(device).eval()
        except (OSError, ValueError) as error:
            raise ModelError(
                f"encoder {source} cannot be opened: {str(error).splitlines()[0]}",
                "Set evaluate.encoder to encoder-mini, clip, a folder or a Hub id.",
            ) from None
        self._device = device

    @torch.no_grad()
    def pictures(self, pictures: Sequence[Image.Image]) -> Array:
        """Unit embeddings of RGB pictures, shape (N, D)."""
        parts = []
        for start in range(0, len(pictures), BATCH):
            inputs = self._processor(images=list(pictures[start : start + BATCH]), return_tensors="pt")
            parts.append(_features(self._model.get_image_features(inputs["pixel_values"].to(self._device))))
        return unit(np.concatenate(parts))

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Array:
        """Unit embeddings of texts, shape (P, D)."""
        inputs = self._processor(text=list(texts), return_tensors="pt", padding=True, truncation=True)
        return unit(_features(self._model.get_text_features(**inputs.to(self._device))))


def resolve(encoder: str, base: str) -> Path:
    """The folder behind an encoder's name; `auto` is the embedded one for the embedded base.

    Raises:
        ModelError: it is absent, or cannot be downloaded.
    """
    if encoder == "auto":
        encoder = "encoder-mini" if base == "flux-mini" else "clip"
    for folder in (EMBEDDED / encoder, Path(encoder).expanduser()):
        if (folder / "config.json").is_file():
            return folder
    return fetch(PUBLISHED.get(encoder, encoder), FILES)


def _features(output: object) -> Array:
    """Transformers 5 wraps the projected features in an output object; 4 returns the tensor."""
    features = output if isinstance(output, torch.Tensor) else output.pooler_output  # type: ignore[attr-defined]
    return np.asarray(features.float().cpu(), dtype=np.float64)
