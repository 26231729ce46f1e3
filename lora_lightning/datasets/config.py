"""What a recipe says about its dataset."""

import re
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from lora_lightning.datasets.crops import Augment
from lora_lightning.settings import Only, Settings

ONLY = {
    "crop_zoom": Only("crops", lambda crops: crops > 1, "crops above 1"),
    "keep_tags": Only("shuffle_tags", lambda orders: orders > 0, "shuffle_tags above 0"),
    "mask_floor": Only("masks", lambda masks: masks != "none", "masks=alpha or masks=folder"),
    "regularisation_repeats": Only("regularisation", bool, "a regularisation dataset"),
    "regularisation_weight": Only("regularisation", bool, "a regularisation dataset"),
}


_CHOSEN = re.compile(r"(?P<name>\S+)(?:\s+x\s*(?P<repeats>\d+))?(?:\s+at\s+(?P<weight>[\d.]+))?")


class Chosen(Settings):
    """A dataset to learn from, how often its pictures come and what their loss weighs: `NAME x 3 at 0.5` as text."""

    name: str = Field(min_length=1)
    repeats: int = Field(1, ge=1, le=1000)
    weight: float = Field(1.0, ge=0, le=10)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = _CHOSEN.fullmatch(value.strip())
        if not found:
            raise ValueError(f"{value!r} is not NAME, NAME x REPEATS or NAME x REPEATS at WEIGHT, such as more x 3")
        return {field: told for field, told in found.groupdict().items() if told}

    def __str__(self) -> str:
        weight = f" at {self.weight:g}" if self.weight != 1 else ""
        return f"{self.name} x {self.repeats}{weight}" if self.repeats > 1 else f"{self.name}{weight}"


class DatasetConfig(Settings):
    """The pictures to work on."""

    name: str = Field("", title="Dataset", description="An imported dataset, by name.")
    resolutions: tuple[int, ...] = Field(
        (512, 768, 1024),
        title="Resolutions",
        description="Sides in pixels, multiples of 16; a picture trains at each that it is large enough for.",
    )
    enlarge: bool = Field(
        False,
        title="Enlarge small pictures",
        description="Train every picture at every resolution, blurred if need be.",
    )
    validation_share: float = Field(
        0.0,
        title="Held out",
        description="Share of the pictures, at least two, that training never sees and is judged by; 0.15 is usual.",
        ge=0,
        le=0.5,
    )
    repeats: int = Field(1, title="Repeats", description="How often each picture comes in an epoch.", ge=1, le=1000)
    further: tuple[Chosen, ...] = Field(
        (),
        title="Further datasets",
        description="Learned with it: NAME, or NAME x 3 (repeats) at 0.5 (weight of the loss), one a line.",
    )
    flip: bool = Field(
        False,
        title="Mirror",
        description="Show a picture mirrored half of the time; not with text or faces to be learned.",
    )
    crops: int = Field(
        1, title="Crops", description="Different cuts of each picture, cached beside the plain one.", ge=1, le=16
    )
    crop_zoom: float = Field(
        1.25,
        title="Crop zoom",
        description="The further crops show a picture up to so many times larger, never beyond its own pixels.",
        ge=1,
        le=4,
    )
    caption_dropout: float = Field(
        0.0,
        title="Caption dropout",
        description="Share of the steps that see the empty caption instead; 0.05 to 0.1 is usual.",
        ge=0,
        le=1,
    )
    shuffle_tags: int = Field(
        0,
        title="Tag orders",
        description="Further orders of a caption's comma-separated tags, each cached (4 MB for FLUX); sentences stay.",
        ge=0,
        le=64,
    )
    keep_tags: int = Field(
        1, title="Tags kept first", description="So many tags stay in front when the others are shuffled.", ge=0, le=64
    )
    all_captions: bool = Field(
        False, title="All captions", description="Draw among a picture's caption, its short one and its tags."
    )
    masks: Literal["none", "alpha", "folder"] = Field(
        "none",
        title="Masks",
        description="Learn only what a mask shows: the picture's own transparency, or white in DATASET/masks/NAME.png.",
    )
    mask_floor: float = Field(
        0.0, title="Mask floor", description="How much of the loss counts where the mask is black.", ge=0, le=1
    )
    references: bool = Field(
        False,
        title="References",
        description="Learn an edit (Kontext, FLUX.2): each picture is what becomes of DATASET/references/NAME.png.",
    )
    regularisation: str = Field(
        "",
        title="Regularisation dataset",
        description="Pictures of the class without the trigger, by name: what must not be forgotten.",
    )
    regularisation_repeats: int = Field(
        1, title="Regularisation repeats", description="How often each of them comes in an epoch.", ge=1, le=1000
    )
    regularisation_weight: float = Field(
        1.0, title="Regularisation weight", description="Of their loss, against 1 of the dataset's.", ge=0, le=10
    )
    workers: int = Field(
        0,
        title="Loader processes",
        description="They read batches ahead; 0 reads in the training process.",
        ge=0,
        le=16,
    )

    @property
    def augment(self) -> Augment:
        """Which views of a picture are trained on."""
        return Augment(self.crops, self.crop_zoom, self.flip, self.enlarge)

    @property
    def chosen(self) -> tuple[Chosen, ...]:
        """What is learned, this dataset first."""
        return (Chosen(name=self.name, repeats=self.repeats), *self.further) if self.name else self.further

    @property
    def kept(self) -> Chosen | None:
        """The regularisation set."""
        name, repeats, weight = self.regularisation, self.regularisation_repeats, self.regularisation_weight
        return Chosen(name=name, repeats=repeats, weight=weight) if name else None

    @field_validator("further")
    @classmethod
    def _each_is_another(cls, further: tuple[Chosen, ...], info: ValidationInfo) -> tuple[Chosen, ...]:
        names = [info.data.get("name"), *(each.name for each in further)]
        if twice := {name for name in names if name and names.count(name) > 1}:
            raise ValueError(f"{sorted(twice)[0]!r} is there twice; give it repeats or a weight instead")
        return further

    @field_validator(*ONLY)
    @classmethod
    def _is_read(cls, value: object, info: ValidationInfo) -> object:
        ONLY[str(info.field_name)].check(cls, value, info)
        return value

    @field_validator("resolutions")
    @classmethod
    def _resolutions_fit_the_patch_grid(cls, resolutions: tuple[int, ...]) -> tuple[int, ...]:
        if not resolutions:
            raise ValueError("at least one resolution is needed, such as [512]")
        for side in resolutions:
            if side % 16 or not 32 <= side <= 2048:
                raise ValueError(f"{side} is not a multiple of 16 between 32 and 2048; use 512, 768 or 1024")
        return tuple(sorted(set(resolutions)))
