"""What a recipe says about its dataset."""

from pydantic import Field, field_validator

from lora_lightning.settings import Settings


class DatasetConfig(Settings):
    """The pictures to work on."""

    name: str = Field("", title="Dataset", description="An imported dataset, by name.")
    resolutions: tuple[int, ...] = Field(
        (512, 768, 1024),
        title="Resolutions",
        description="Training resolutions in pixels, multiples of 16; a picture is never enlarged to reach one.",
    )

    @field_validator("resolutions")
    @classmethod
    def _resolutions_fit_the_patch_grid(cls, resolutions: tuple[int, ...]) -> tuple[int, ...]:
        if not resolutions:
            raise ValueError("at least one resolution is needed, such as [512]")
        for side in resolutions:
            if side % 16 or not 32 <= side <= 2048:
                raise ValueError(f"{side} is not a multiple of 16 between 32 and 2048; use 512, 768 or 1024")
        return tuple(sorted(set(resolutions)))
