"""What training and drawing ask of a model family; a new family is one file in families/.

Shapes: B batch, C latent channels, H W latent rows and columns, L tokens, D features.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from diffusers import DiffusionPipeline, ModelMixin
from torch import Tensor

from lora_lightning import plugins
from lora_lightning.errors import ModelError
from lora_lightning.models.bfl import Layout
from lora_lightning.models.config import resolve_base
from lora_lightning.models.source import Source, find_source


class TextEmbedding(NamedTuple):
    """A text as the transformer reads it: `sequence_BLD`, and CLIP's `pooled_BD`, whose D is 0 for FLUX.2."""

    sequence_BLD: Tensor
    pooled_BD: Tensor


class Posterior(NamedTuple):
    """A picture's latent distribution, shifted and scaled as the transformer expects: x_0 = mean + std * epsilon."""

    mean_BCHW: Tensor
    std_BCHW: Tensor


@dataclass(frozen=True)
class Encoder:
    """What an encoder's output depends on: the bytes of these folders and files, and these facts."""

    folders: tuple[Path, ...]
    facts: str


class Family(Protocol):
    """One base model in a folder. Its parts are loaded when first used, and only those."""

    source: Source
    """Where its parts lie."""
    architecture: str
    """As in the header of a LoRA file (`modelspec.architecture` without `/lora`)."""
    lora_targets: Mapping[str, str]
    """Presets of adapted linears: name -> regular expression over module names."""
    layout: Layout
    """The transformer's module names in Black Forest Labs' layout."""
    bfl_files: bool
    """Whether its LoRA files use those names, not diffusers'."""
    kinds: Collection[str]
    """Kinds of adapter that have a file which other tools read."""
    text_encoder: Encoder
    image_encoder: Encoder
    device: torch.device
    dtype: torch.dtype
    edits: bool
    """Whether it can be shown a picture to edit."""
    needs_empty_text: bool
    """Whether it draws with classifier-free guidance, and so needs the embedding of the empty text."""
    empty_text: TextEmbedding | None
    """That embedding, once it is known; `encode_text` makes it, and `pipeline` where nobody did before."""

    def encode_text(self, texts: Sequence[str]) -> TextEmbedding:
        """Embed texts, exactly as the family's stock pipeline does."""

    def encode_image(self, pixels_BCHW: Tensor) -> Posterior:
        """Encode RGB pixels in [-1, 1]; sides are multiples of 16."""

    def load_transformer(self, quantize: str = "none") -> ModelMixin:
        """The frozen denoiser on the device, its linears quantised by a plugin of models/quantize."""

    def velocity(
        self,
        transformer: ModelMixin,
        x_BCHW: Tensor,
        sigma_B: Tensor,
        text: TextEmbedding,
        reference_BCHW: Tensor | None = None,
    ) -> Tensor:
        """The transformer's estimate of epsilon - x_0 at x_sigma, shape BCHW; sigma in fp32, 0 to 1.

        `reference_BCHW` are the clean latents of a picture to be edited, of any height and width: its tokens follow
        those of x_sigma, at positions of their own, and nothing is estimated for them.
        """

    def pipeline(self, transformer: ModelMixin) -> DiffusionPipeline:
        """The family's stock pipeline around a transformer, without text encoders."""

    def release(self) -> None:
        """Let go of every part loaded so far."""


def open_family(
    base: str, *, device: torch.device, dtype: torch.dtype, files: Mapping[str, str] | None = None
) -> Family:
    """The family of a base model, by its `model_index.json`; no weights are read yet.

    Args:
        base: a short name, a diffusers folder, or a Hub id (downloaded when it is not in the local cache).
        device: where the parts are loaded to.
        dtype: of the weights.
        files: single files that hold the weights of a part, by `ModelFiles`' names.

    Raises:
        ModelError: it is absent, incomplete, gated, or of a family that is not known.
    """
    source = find_source(base, resolve_base(base), files or {})
    for name in plugins.names("models/families"):
        module = plugins.load("models/families", name)
        if source.pipeline in module.PIPELINES:
            family: Family = module.open_source(source, device=device, dtype=dtype)
            return family
    raise ModelError(
        f"{base} is a {source.pipeline or 'model of unknown kind'}, which is not supported",
        "Use FLUX.1 (dev, schnell, Krea, Kontext), FLUX.2 (klein base, dev), or a fine-tune of them.",
    )
