"""What a recipe says about training and its samples; importing this needs no torch."""

from typing import Literal

from pydantic import Field

from lora_lightning.settings import Settings


class TrainConfig(Settings):
    """How the adapter is learned."""

    steps: int = Field(1000, title="Steps", description="Optimizer steps.", ge=1, le=1_000_000)
    learning_rate: float = Field(
        1e-4,
        title="Learning rate",
        description="1e-4 is gentle; 3e-4 to 5e-4 learns fast and forgets fast.",
        gt=0,
        le=1,
    )
    batch_size: int = Field(1, title="Batch size", description="Pictures in one forward pass.", ge=1, le=256)
    accumulate: int = Field(1, title="Accumulate", description="Forward passes for each optimizer step.", ge=1, le=1024)
    optimizer: Literal["adamw", "adamw8bit"] = Field(
        "adamw8bit", title="Optimizer", description="adamw8bit keeps its state in 8 bit (bitsandbytes)."
    )
    max_gradient_norm: float = Field(1.0, title="Gradient clipping", description="0 turns it off.", ge=0)
    precision: Literal["bf16-mixed", "32-true"] = Field(
        "bf16-mixed", title="Precision", description="bf16-mixed: base in bf16, adapter in fp32."
    )
    quantize: Literal["none", "nf4"] = Field(
        "none", title="Quantise the base", description="nf4 keeps the frozen base in 4 bit (bitsandbytes)."
    )
    gradient_checkpointing: bool = Field(
        True, title="Gradient checkpointing", description="Recompute activations: less memory, more time."
    )
    timesteps: Literal["logit_normal", "uniform"] = Field(
        "logit_normal", title="Timesteps", description="How the noise level sigma is drawn."
    )
    shift: Literal["none", "resolution"] | float = Field(
        "resolution",
        title="Shift",
        description="Move sigma towards noise: by resolution as FLUX.1-dev samples, by a number, or not.",
    )
    checkpoint_every: int = Field(250, title="Checkpoint every", description="Steps between checkpoints.", ge=1)
    sample_every: int = Field(
        250, title="Sample every", description="Steps between sample pictures; 0 draws none.", ge=0
    )


class SampleConfig(Settings):
    """The pictures drawn while training, with fixed seeds."""

    prompts: tuple[str, ...] = Field((), title="Sample prompts", description="Drawn at step 0 and every few steps.")
    steps: int = Field(20, title="Sampling steps", description="Denoising steps; 4 suits schnell.", ge=1, le=200)
    guidance: float = Field(4.0, title="Guidance", description="Guidance scale of the samples.", ge=0, le=30)
    seed: int = Field(42, title="Sample seed", description="Picture i uses seed + i.", ge=0)
    width: int = Field(1024, title="Width", description="Pixels, a multiple of 16.", ge=32, le=4096, multiple_of=16)
    height: int = Field(1024, title="Height", description="Pixels, a multiple of 16.", ge=32, le=4096, multiple_of=16)
