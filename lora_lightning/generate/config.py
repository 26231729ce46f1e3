"""What a recipe says about generation; importing this needs no torch."""

from pydantic import Field, ValidationInfo, field_validator

from lora_lightning.settings import Only, Settings

ONLY = {
    "vary_pictures": Only("vary", bool, "vary, a dataset"),
    "strength": Only("vary", bool, "vary, a dataset"),
    "reference": Only("vary", lambda vary: not vary, "vary empty: a variation has its own picture for reference"),
}


class LoraChoice(Settings):
    """One LoRA in the mix."""

    name: str = Field(description="A finished LoRA of this workspace, or a .safetensors file.", min_length=1)
    weight: float = Field(1.0, description="Strength; 0 leaves the base unchanged.", ge=-4, le=4)


class GenerateConfig(Settings):
    """The pictures to draw."""

    prompts: tuple[str, ...] = Field(
        (), title="Prompts", description="One a picture; <lora:name:weight> adds a LoRA to that prompt."
    )
    loras: tuple[LoraChoice, ...] = Field((), title="LoRAs", description="Used for every prompt.")
    images_per_prompt: int = Field(1, title="Pictures per prompt", description="Picture i uses seed + i.", ge=1, le=64)
    steps: int = Field(20, title="Sampling steps", description="Denoising steps; 4 suits schnell.", ge=1, le=200)
    guidance: float = Field(3.5, title="Guidance", description="How closely the prompt is followed.", ge=0, le=30)
    seed: int = Field(42, title="Seed", description="The same seed draws the same picture.", ge=0)
    width: int = Field(1024, title="Width", description="Pixels, a multiple of 16.", ge=32, le=4096, multiple_of=16)
    height: int = Field(1024, title="Height", description="Pixels, a multiple of 16.", ge=32, le=4096, multiple_of=16)
    vary: str = Field(
        "",
        title="Vary a dataset",
        description="Draw its pictures anew, each from itself (img2img, FLUX.1); its caption is the prompt, or stands "
        "for {caption} in the prompts. width x height is the area. They wait on the Datasets page for your word.",
    )
    vary_pictures: str = Field(
        "",
        title="Pictures to vary",
        description="Numbers such as 3,17, or a filter such as tokens>20; empty for all.",
    )
    strength: float = Field(
        0.6,
        title="Strength",
        description="How far a variation goes: 0.3 keeps the composition, 1 keeps nothing of its picture.",
        gt=0,
        le=1,
    )
    reference: str = Field(
        "",
        title="Reference",
        description="The file of a picture to edit (Kontext, FLUX.2); it gives the shape, width x height the area.",
    )

    @field_validator(*ONLY)
    @classmethod
    def _is_read(cls, value: object, info: ValidationInfo) -> object:
        ONLY[str(info.field_name)].check(cls, value, info)
        return value
