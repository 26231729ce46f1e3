"""What a recipe says about the base model and the adapter on it; importing this needs no torch."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from lora_lightning.settings import Settings

PUBLISHED = {
    "dev": "black-forest-labs/FLUX.1-dev",
    "schnell": "black-forest-labs/FLUX.1-schnell",
    "krea": "black-forest-labs/FLUX.1-Krea-dev",
    "kontext": "black-forest-labs/FLUX.1-Kontext-dev",
    "klein-4b": "black-forest-labs/FLUX.2-klein-base-4B",
    "klein-9b": "black-forest-labs/FLUX.2-klein-base-9B",
    "flux2-dev": "black-forest-labs/FLUX.2-dev",
}
"""Base models by their short names, as Hub ids."""

SCHNELL_ADAPTER = "ostris/FLUX.1-schnell-training-adapter"
"""Undoes schnell's distillation while it is trained on; without it, its four-step drawing breaks."""

EMBEDDED = Path(__file__).parent.parent / "demo" / "models"
"""Small models that ship with the package, by folder name."""

LOW_VRAM_BELOW_GIB = 40
"""Cards below it get model.low_vram where it is `auto`."""

Preset = Literal["attention", "all", "modulation", "content", "style"]


class ModelFiles(Settings):
    """Single files, in BFL's or ComfyUI's layout, that stand in for parts of the base model."""

    transformer: str = Field("", title="Transformer file", description="Such as flux1-dev.safetensors.")
    ae: str = Field("", title="Autoencoder file", description="Such as ae.safetensors.")
    clip_l: str = Field("", title="CLIP file", description="Such as clip_l.safetensors.")
    t5xxl: str = Field("", title="T5 file", description="Such as t5xxl_fp16.safetensors.")


class ModelConfig(Settings):
    """The model that is adapted."""

    base: str = Field(
        "dev",
        title="Base model",
        description=f"{', '.join(PUBLISHED)}, flux-mini, a diffusers folder, or a Hub id.",
        min_length=1,
    )
    files: ModelFiles = Field(
        ModelFiles(), title="Single files", description="transformer, ae, clip_l, t5xxl: files instead of the base's."
    )
    low_vram: Literal["auto"] | bool = Field(
        "auto",
        title="Low VRAM",
        description="On: the least memory, with the base in 4 bit and activations recomputed. Off: the base is rounded "
        "only if train.quantize says so. auto: as the card needs.",
    )
    training_adapter: str = Field(
        "auto",
        title="Training adapter",
        description="A LoRA on the base while training, off while drawing: none, a file or Hub id; auto: schnell's.",
        min_length=1,
    )


class LoraConfig(Settings):
    """The adapter that is learned."""

    kind: Literal["lora", "dora", "lokr", "loha"] = Field(
        "lora",
        title="Kind",
        description="lora loads everywhere; dora in diffusers and new ComfyUI; lokr and loha in ComfyUI and here.",
    )
    rank: int = Field(16, title="Rank", description="Size of the adapter; 8 to 32 is usual.", ge=1, le=256)
    alpha: float | None = Field(
        None,
        title="Alpha",
        description="The update is scaled by alpha / rank; empty means equal to rank.",
        gt=0,
        le=1024,
    )
    rslora: bool = Field(
        False, title="rsLoRA", description="Scale by alpha / sqrt(rank): one learning rate suits every rank."
    )
    targets: Preset = Field(
        "all",
        title="Targets",
        description="Adapted linears: attention; all (with feed-forward); modulation (all and it); content or style: "
        "all, in FLUX.1's single blocks that draw the one or the other.",
    )
    modules: str = Field(
        "", title="Modules", description="A regular expression over whole module names, instead of the targets."
    )
    ranks: tuple[str, ...] = Field(
        (), title="Ranks by module", description="REGEX=RANK, one a line: another rank where the name matches."
    )
    dropout: float = Field(
        0.0, title="Dropout", description="Share of the adapter's inputs dropped; lora and dora.", ge=0, lt=1
    )
    factor: int = Field(
        8, title="LoKr factor", description="Size of lokr's small factor; larger means a smaller adapter.", ge=2, le=64
    )
    init_from: str = Field(
        "", title="Continue from", description="A finished LoRA's name or file, of the same kind, ranks and modules."
    )
    kohya_file: bool = Field(
        False, title="Kohya file", description="Also write NAME-kohya.safetensors, for tools that know only that."
    )

    @property
    def scale(self) -> float:
        """What the update is multiplied by, where the rank is the common one."""
        return (self.alpha or self.rank) / (self.rank**0.5 if self.rslora else self.rank)

    @property
    def options(self) -> dict[str, Any]:
        """What `lora.inject` is told."""
        names = ("kind", "rank", "rslora", "dropout", "factor")
        ranks = {pattern.strip(): int(rank) for pattern, _, rank in (line.rpartition("=") for line in self.ranks)}
        chosen = {name: getattr(self, name) for name in names}
        return chosen | {"alpha": self.alpha or float(self.rank), "ranks": ranks}

    @field_validator("modules")
    @classmethod
    def _modules_is_an_expression(cls, modules: str) -> str:
        _compiled(modules)
        return modules

    @field_validator("ranks")
    @classmethod
    def _ranks_are_expressions(cls, ranks: tuple[str, ...]) -> tuple[str, ...]:
        for line in ranks:
            pattern, sign, rank = line.rpartition("=")
            if not sign or not pattern.strip() or not rank.strip().isdecimal() or not 1 <= int(rank) <= 256:
                raise ValueError(f"{line!r} is not REGEX=RANK with a rank from 1 to 256")
            _compiled(pattern.strip())
        return ranks

    @model_validator(mode="after")
    def _options_fit_the_kind(self) -> "LoraConfig":
        factors = self.kind in ("lora", "dora")
        wrong = {
            "dropout": self.dropout and not factors,
            "rslora": self.rslora and not factors,
            "kohya_file": self.kohya_file and self.kind != "lora",
            "factor": self.factor != 8 and self.kind != "lokr",
        }
        for name, given in wrong.items():
            if given:
                raise ValueError(f"{name} does not apply to {self.kind}")
        return self


def _compiled(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None


def resolve_base(base: str) -> str:
    """The folder or Hub id behind a base model's name."""
    if base in PUBLISHED:
        return PUBLISHED[base]
    embedded = EMBEDDED / base
    if "/" not in base and (embedded / "model_index.json").is_file():
        return str(embedded)
    return str(Path(base).expanduser()) if Path(base).expanduser().exists() else base


def resolve_training_adapter(setting: str, base: str) -> str:
    """The file or Hub id of the training adapter; empty for none."""
    if setting == "auto":
        return SCHNELL_ADAPTER if resolve_base(base) == PUBLISHED["schnell"] else ""
    return "" if setting == "none" else setting
