"""What a recipe says about the base model and the adapter on it; importing this needs no torch."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from lora_lightning.settings import Settings

PUBLISHED = {
    "dev": "black-forest-labs/FLUX.1-dev",
    "schnell": "black-forest-labs/FLUX.1-schnell",
}
"""Base models by their short names, as Hub ids."""

EMBEDDED = Path(__file__).parent.parent / "demo" / "models"
"""Small models that ship with the package, by folder name."""


class ModelConfig(Settings):
    """The model that is adapted."""

    base: str = Field(
        "dev",
        title="Base model",
        description="dev, schnell, flux-mini, a diffusers folder, or a Hub id.",
        min_length=1,
    )
    low_vram: Literal["auto"] | bool = Field(
        "auto",
        title="Low VRAM",
        description="Quantise the base to 4 bit (nf4) and recompute activations; auto turns it on below 40 GB.",
    )


class LoraConfig(Settings):
    """The adapter that is learned."""

    rank: int = Field(16, title="Rank", description="Size of the adapter; 8 to 32 is usual.", ge=1, le=256)
    alpha: float | None = Field(
        None,
        title="Alpha",
        description="The update is scaled by alpha / rank; empty means equal to rank.",
        gt=0,
        le=1024,
    )
    targets: Literal["attention", "all"] = Field(
        "all", title="Targets", description="Adapted linear layers: those of attention alone, or all in the blocks."
    )

    @property
    def scale(self) -> float:
        """Alpha / rank."""
        return (self.alpha or self.rank) / self.rank


def resolve_base(base: str) -> str:
    """The folder or Hub id behind a base model's name."""
    if base in PUBLISHED:
        return PUBLISHED[base]
    embedded = EMBEDDED / base
    if "/" not in base and (embedded / "model_index.json").is_file():
        return str(embedded)
    return str(Path(base).expanduser()) if Path(base).expanduser().exists() else base
