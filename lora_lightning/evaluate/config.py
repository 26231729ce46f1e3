"""What a recipe says about evaluation; importing this needs no torch."""

from pydantic import Field

from lora_lightning.settings import Settings

PUBLISHED = {"clip": "openai/clip-vit-base-patch32"}
"""Encoders by their short names, as Hub ids."""


class EvaluateConfig(Settings):
    """The pictures by which a LoRA is judged: each drawn by the base and by the LoRA from the same seed."""

    prompts: tuple[str, ...] = Field(
        (),
        title="Prompts",
        description="Content without the trigger, best of subjects that are not in the dataset; empty uses a list.",
    )
    references: tuple[str, ...] = Field(
        (), title="References", description="Pictures of how each prompt should look, in their order; shown beside."
    )
    weights: tuple[float, ...] = Field(
        (0.5, 1.0), title="Weights", description="Strengths of the LoRA to compare with the base.", min_length=1
    )
    seeds: int = Field(1, title="Seeds", description="Pictures for each prompt and strength.", ge=1, le=64)
    seed: int = Field(42, title="First seed", description="Picture i uses seed + i.", ge=0)
    encoder: str = Field(
        "auto",
        title="Encoder",
        description="Measures style and content: encoder-mini, clip, a folder, a Hub id; auto fits the base.",
        min_length=1,
    )
    steps: int = Field(20, title="Sampling steps", description="Denoising steps; 4 suits schnell.", ge=1, le=200)
    guidance: float = Field(3.5, title="Guidance", description="How closely the prompt is followed.", ge=0, le=30)
    width: int = Field(1024, title="Width", description="Pixels, a multiple of 16.", ge=32, le=4096, multiple_of=16)
    height: int = Field(1024, title="Height", description="Pixels, a multiple of 16.", ge=32, le=4096, multiple_of=16)
