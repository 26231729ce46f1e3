"""What a recipe says about captioning; importing this needs no torch."""

from pydantic import Field

from lora_lightning.settings import Settings

PUBLISHED = {
    "joycaption": "fancyfeast/llama-joycaption-beta-one-hf-llava",
    "joycaption-alpha-two": "fancyfeast/llama-joycaption-alpha-two-hf-llava",
}
"""Captioners by their short names, as Hub ids."""


class CaptionConfig(Settings):
    """How pictures are described."""

    captioner: str = Field(
        "joycaption",
        title="Captioner",
        description="joycaption (Beta One), joycaption-alpha-two, captioner-mini, a folder, or a Hub id.",
        min_length=1,
    )
    prompt: str = Field(
        "Write a medium-length descriptive caption for this image in a formal tone.",
        title="Prompt",
        description="What the captioner is asked; JoyCaption knows the wordings it was trained with best.",
        min_length=1,
    )
    temperature: float = Field(0.7, title="Temperature", description="0 always takes the likeliest word.", ge=0, le=2)
    top_p: float = Field(0.9, title="Top-p", description="Draw from the likeliest words up to this share.", gt=0, le=1)
    max_tokens: int = Field(300, title="Max tokens", description="Longest caption, in tokens.", ge=1, le=2048)
    batch_size: int = Field(4, title="Batch size", description="Pictures described at once.", ge=1, le=128)
    replace: bool = Field(
        False,
        title="Replace machine captions",
        description="Caption again what a captioner wrote before; captions by a person are always kept.",
    )
