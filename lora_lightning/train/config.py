"""What a recipe says about training; importing this needs no torch."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from lora_lightning.settings import Only, Settings
from lora_lightning.train.schedule import Schedule, Stage, Stretch, warmup_steps
from lora_lightning.train.timesteps import Sampler, Timesteps

ONLY = {
    "betas": Only("optimizer", lambda optimizer: optimizer != "adafactor", "an optimizer other than adafactor"),
    "early_stop": Only("stages", lambda stages: not stages, "no further stages, which are judged one by one"),
    "logit_mean": Only("timesteps", lambda sampler: sampler == "logit_normal", "timesteps=logit_normal"),
    "logit_std": Only("timesteps", lambda sampler: sampler in ("logit_normal", "sigmoid"), "logit_normal or sigmoid"),
    "mode_scale": Only("timesteps", lambda sampler: sampler == "mode", "timesteps=mode"),
    "huber_delta": Only("loss", lambda loss: loss == "huber", "loss=huber"),
    "huber_schedule": Only("loss", lambda loss: loss == "huber", "loss=huber"),
    "class_word": Only("preservation", bool, "preservation above 0"),
}


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
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", title="Schedule", description="How the learning rate falls after the warm-up: not, or towards 0."
    )
    stages: tuple[Stage, ...] = Field(
        (),
        title="Further stages",
        description="STEPS at LEARNING RATE, one a line, such as `500 at 2e-4`; each is kept only if it helped.",
    )
    warmup: float = Field(
        0.0, title="Warm-up", description="Steps over which the learning rate rises; below 1 a share of them.", ge=0
    )
    optimizer: Literal["adamw", "adamw8bit", "paged_adamw8bit", "prodigy", "adafactor", "lion", "lion8bit"] = Field(
        "adamw8bit",
        title="Optimizer",
        description="8bit: state in 8 bit; paged: moved to RAM when memory is short; prodigy: learning rate 1.",
    )
    betas: tuple[float, ...] = Field(
        (), title="Betas", description="Two decay rates of the optimizer's averages; empty for its own."
    )
    weight_decay: float = Field(
        1e-4, title="Weight decay", description="How fast unused weights shrink towards 0.", ge=0, le=1
    )
    max_gradient_norm: float = Field(1.0, title="Gradient clipping", description="0 turns it off.", ge=0)
    ema_decay: float = Field(
        0.0,
        title="Moving average",
        description="Decay of an average of the adapter, such as 0.99; it is then what is drawn, validated and saved.",
        ge=0,
        lt=1,
    )
    devices: int | Literal["auto"] = Field(
        1, title="Devices", description="GPUs that train together, each with its own batch; auto: all there are."
    )
    num_nodes: int = Field(1, title="Machines", description="Each with so many devices.", ge=1, le=1024)
    precision: Literal["bf16-mixed", "32-true"] = Field(
        "bf16-mixed", title="Precision", description="bf16-mixed: base in bf16, adapter in fp32."
    )
    quantize: Literal["auto", "none", "int8", "fp8", "nf4"] = Field(
        "auto",
        title="Quantise the base",
        description="The frozen base in 8 bit, or in 4 (nf4); int8 is more exact than fp8. auto: as the card needs.",
    )
    fast: Literal["auto"] | bool = Field(
        "auto",
        title="Fast path",
        description="Fused blocks, compiled on a GPU: for FLUX.1 with a plain LoRA without dropout. auto: not yet.",
    )
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp",
        title="Strategy",
        description="Of several devices: ddp keeps the base whole on each; fsdp a part of it, for one that is larger.",
    )
    gradient_checkpointing: int | Literal["auto"] | bool = Field(
        "auto",
        title="Gradient checkpointing",
        description="Recompute activations of all blocks, or of so many: less memory, more time. auto: as needed.",
    )
    stream: int | Literal["auto"] = Field(
        "auto",
        title="Blocks in RAM",
        description="Blocks whose weights wait in the machine's memory (fast path only). auto: as few as needed.",
    )
    timesteps: Sampler = Field(
        "logit_normal",
        title="Timesteps",
        description="How the noise level sigma is drawn; style draws much noise, which sets palette and layout.",
    )
    logit_mean: float = Field(
        0.0, title="Logit mean", description="logit_normal: above 0 is more noise, below is detail.", ge=-6, le=6
    )
    logit_std: float = Field(
        1.0, title="Logit deviation", description="logit_normal and sigmoid: how wide sigma is spread.", ge=0.05, le=4
    )
    mode_scale: float = Field(
        1.29,
        title="Mode scale",
        description="mode: above 0 the middle comes more often, below the ends.",
        ge=-1,
        le=1.75,
    )
    shift: Literal["none", "resolution"] | float = Field(
        "resolution",
        title="Shift",
        description="Move sigma towards noise: by resolution as FLUX.1-dev samples, by a number, or not.",
    )
    loss: Literal["mse", "huber"] = Field(
        "mse", title="Loss", description="huber (pseudo-Huber) forgives outliers: noisy pictures, wrong captions."
    )
    huber_delta: float = Field(
        0.1, title="Huber delta", description="huber: the error from which it grows no longer squared.", gt=0, le=10
    )
    huber_schedule: Literal["constant", "exponential"] = Field(
        "constant", title="Huber schedule", description="exponential: delta to the power of sigma, so 1 without noise."
    )
    loss_weighting: Literal["none", "sigma_sqrt", "cosmap"] = Field(
        "none", title="Loss weighting", description="By sigma: sigma_sqrt is sigma^-2, cosmap favours the middle."
    )
    preservation: float = Field(
        0.0,
        title="Preservation",
        description="Weight of staying with the base when the class word stands in for the trigger; doubles the time.",
        ge=0,
        le=10,
    )
    class_word: str = Field(
        "",
        title="Class word",
        description="What the trigger is one of, such as person; empty leaves the trigger out of the caption.",
        max_length=100,
    )
    checkpoint_every: int = Field(250, title="Checkpoint every", description="Steps between checkpoints.", ge=1)
    sample_every: int = Field(
        250, title="Sample every", description="Steps between sample pictures; 0 draws none.", ge=0
    )
    validate_every: int = Field(
        250,
        title="Validate every",
        description="Steps between looks at the held-out pictures (dataset.validation_share).",
        ge=1,
    )
    early_stop: bool = Field(
        False, title="Stop early", description="End when three validations in a row show overfitting."
    )
    result: Literal["last", "best"] = Field(
        "last", title="Result", description="Which checkpoint becomes the LoRA; best: the one that validation proposes."
    )

    @property
    def plan(self) -> Schedule:
        """Steps and learning rates of all stages."""
        first = Stretch(self.steps, self.learning_rate)
        further = (Stretch(stage.steps, stage.learning_rate) for stage in self.stages)
        return Schedule((first, *further), self.schedule, self.warmup)

    @property
    def judged(self) -> list[str]:
        """What is set and cannot be had without held-out pictures."""
        return [
            f"train.{name}"
            for name, wanted in (("early_stop", self.early_stop), ("result", self.result == "best"))
            if wanted
        ]

    @field_validator("warmup")
    @classmethod
    def _warmup_ends(cls, warmup: float, info: ValidationInfo) -> float:
        shortest = min([info.data.get("steps", 1), *(stage.steps for stage in info.data.get("stages", ()))])
        if warmup_steps(warmup, shortest) >= shortest:
            raise ValueError(f"the warm-up takes all of {shortest} steps; use fewer, or a share such as 0.05")
        return warmup

    @field_validator("betas")
    @classmethod
    def _betas_are_two_decay_rates(cls, betas: tuple[float, ...]) -> tuple[float, ...]:
        if betas and (len(betas) != 2 or not all(0 <= beta < 1 for beta in betas)):
            raise ValueError("give two numbers from 0 to below 1, such as [0.9, 0.999]")
        return betas

    @field_validator("devices")
    @classmethod
    def _devices_are_some(cls, devices: int | str) -> int | str:
        if not isinstance(devices, str) and not 1 <= devices <= 64:
            raise ValueError("give a number from 1 to 64, or auto for all that there are")
        return devices

    @field_validator("strategy")
    @classmethod
    def _shards_are_plain_and_several(cls, strategy: str, info: ValidationInfo) -> str:
        wanted = {"quantize": "none", "fast": False}
        for name, value in wanted.items() if strategy == "fsdp" else ():
            if info.data.get(name, value) not in (value, "auto"):
                raise ValueError(f"fsdp shares out the base as it is: set {name}={str(value).lower()}, or strategy=ddp")
        if strategy == "fsdp" and info.data.get("devices") == info.data.get("num_nodes") == 1:
            raise ValueError("fsdp applies only with several devices: set devices=2, or strategy=ddp")
        return strategy

    @field_validator("gradient_checkpointing", "stream")
    @classmethod
    def _blocks_are_counted(cls, blocks: int | str | bool) -> int | str | bool:
        if not isinstance(blocks, str) and blocks < 0:
            raise ValueError("give a number of blocks, 0 or more, or auto")
        return blocks

    @field_validator("shift")
    @classmethod
    def _shift_is_a_factor(cls, shift: str | float) -> str | float:
        if not isinstance(shift, str) and not 0 < shift <= 100:
            raise ValueError("a shift is a factor above 0, up to 100; 1 changes nothing, 3 is usual at 1024 pixels")
        return shift

    @field_validator(*ONLY)
    @classmethod
    def _is_read(cls, value: object, info: ValidationInfo) -> object:
        ONLY[str(info.field_name)].check(cls, value, info)
        return value

    @property
    def sigmas(self) -> Timesteps:
        """The distribution of sigma."""
        return Timesteps(self.timesteps, self.logit_mean, self.logit_std, self.mode_scale, self.shift)
