"""Pictures and texts in one space, by any CLIP-style model that transformers' AutoModel opens."""

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Embedded:
    """Pictures as unit vectors.

    Attributes:
        content_ND: in the space that texts share, which says what is shown.
        look_ND: the mean over the tokens of the vision tower's middle layer, which says how it is drawn: on the demo's
            ink set two halves of the style's direction agree there with a cosine of 0.96, in the shared space 0.22.
    """

    content_ND: Array
    look_ND: Array


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

    def pictures(self, pictures: Sequence[Image.Image]) -> Embedded:
        """What RGB pictures show and how they look, N rows each."""
        parts = [self._embed(pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH)]
        return Embedded(
            unit(np.concatenate([part.content_ND for part in parts])),
            unit(np.concatenate([part.look_ND for part in parts])),
        )

    @torch.no_grad()
    def _embed(self, pictures: Sequence[Image.Image]) -> Embedded:
        inputs = self._processor(images=list(pictures), return_tensors="pt")
        pixels = inputs["pixel_values"].to(self._device)
        hidden = self._model.vision_model(pixels, output_hidden_states=True).hidden_states
        return Embedded(
            _array(_features(self._model.get_image_features(pixels))),
            _array(hidden[(len(hidden) - 1) // 2].mean(dim=1)),
        )

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Array:
        """Unit embeddings of texts, shape (P, D)."""
        inputs = self._processor(text=list(texts), return_tensors="pt", padding=True, truncation=True)
        return unit(_array(_features(self._model.get_text_features(**inputs.to(self._device)))))


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


def _features(output: object) -> torch.Tensor:
    """The projected features; transformers 5 wraps them in an output object, 4 returned the tensor."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output  # type: ignore[attr-defined]


def _array(features: torch.Tensor) -> Array:
    return np.asarray(features.float().cpu(), dtype=np.float64)
