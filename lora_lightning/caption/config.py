"""What a recipe says about captioning; importing this needs no torch."""

import json
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from lora_lightning.caption.presets import filled, prompt_for
from lora_lightning.settings import Settings

PUBLISHED = {
    "joycaption": "fancyfeast/llama-joycaption-beta-one-hf-llava",
    "joycaption-alpha-two": "fancyfeast/llama-joycaption-alpha-two-hf-llava",
    "florence-2-base": "florence-community/Florence-2-base-ft",
    "florence-2-large": "florence-community/Florence-2-large-ft",
    "qwen2.5-vl-3b": "Qwen/Qwen2.5-VL-3B-Instruct",
    "qwen2.5-vl-7b": "Qwen/Qwen2.5-VL-7B-Instruct",
    "qwen3-vl-4b": "Qwen/Qwen3-VL-4B-Instruct",
    "qwen3-vl-8b": "Qwen/Qwen3-VL-8B-Instruct",
    "blip-2": "Salesforce/blip2-opt-2.7b",
    "wd-vit": "SmilingWolf/wd-vit-tagger-v3",
    "wd-vit-large": "SmilingWolf/wd-vit-large-tagger-v3",
}
"""Captioners by their short names, as Hub ids."""

NEEDS_GB = {
    "joycaption": {"none": 17, "int8": 10, "nf4": 7},
    "joycaption-alpha-two": {"none": 17, "int8": 10, "nf4": 7},
    "qwen2.5-vl-3b": {"none": 8, "int8": 6, "nf4": 4},
    "qwen2.5-vl-7b": {"none": 17, "int8": 11, "nf4": 8},
    "qwen3-vl-4b": {"none": 9, "int8": 6, "nf4": 4},
    "qwen3-vl-8b": {"none": 18, "int8": 11, "nf4": 8},
    "blip-2": {"none": 8, "int8": 5, "nf4": 4},
}
"""GPU memory for the weights of those that are large, by `quantize`; each picture of a batch adds about 0.15 GB."""

PROMPT = "Write a medium-length detailed description for this image."
MOST_PREVIEWS = 3
PREVIEW_PICTURES = 4


class CaptionConfig(Settings):
    """How pictures are described."""

    captioner: str = Field(
        "joycaption",
        title="Captioner",
        description="joycaption (Beta One), joycaption-alpha-two, qwen3-vl-8b, florence-2-large, blip-2, wd-vit, "
        "captioner-mini, a folder, or a Hub id; with an endpoint, the model's name there.",
        min_length=1,
    )
    prompt: str = Field(
        PROMPT,
        title="Prompt",
        description="What the captioner is asked; JoyCaption knows the sentences it was trained with best. "
        "{trigger} or {name} becomes the trigger word, {tags} what the tagger found.",
        min_length=1,
    )
    preset: Literal["none", "person", "style", "object", "concept"] = Field(
        "none",
        title="Prompt for a kind of LoRA",
        description="Takes the place of the prompt: what to describe, and what to leave to the trigger word.",
    )
    more_prompts: tuple[str, ...] = Field(
        (), title="More prompts", description="Asked beside the first one, for each picture.", max_length=8
    )
    several: Literal["join", "draw"] = Field(
        "join",
        title="Several prompts",
        description="join: ask all and put the answers one behind the other; draw: ask one of them, by chance, so that "
        "captions differ in length and wording.",
    )
    tagger: str = Field(
        "",
        title="Tagger",
        description="Looks at each picture first; its tags take the place of {tags} in the prompt. wd-vit, "
        "wd-vit-large, a folder or a Hub id; empty for none.",
    )
    prefix: str = Field("", title="Before each caption", description="Such as '{trigger}, '.")
    suffix: str = Field("", title="Behind each caption", description="Such as ', watercolour on rough paper'.")
    temperature: float = Field(0.7, title="Temperature", description="0 always takes the likeliest word.", ge=0, le=2)
    top_p: float = Field(0.9, title="Top-p", description="Draw from the likeliest words up to this share.", gt=0, le=1)
    max_tokens: int = Field(300, title="Max tokens", description="Longest caption, in tokens.", ge=1, le=2048)
    rerolls: int = Field(
        2,
        title="Re-rolls",
        description="How often a caption that repeats itself is tried again with another seed.",
        ge=0,
        le=10,
    )
    batch_size: int = Field(
        4, title="Batch size", description="Pictures described at once; halved when memory runs out.", ge=1, le=128
    )
    quantize: Literal["none", "int8", "nf4"] = Field(
        "none",
        title="Quantise",
        description="Store the captioner's language model in 8 or 4 bits: an 8 B model takes 17, 10 or 7 GB.",
    )
    existing: Literal["keep", "replace_machine", "replace_all"] = Field(
        "keep",
        title="Existing captions",
        description="keep them all; replace those that a captioner wrote in another way; or replace even those by "
        "people and imports (their versions stay in the history).",
    )
    written_as: Literal["caption", "short", "tags"] = Field(
        "caption",
        title="Written as",
        description="The caption that trainers get, or a further one beside it: a short one, or tags.",
    )
    pictures: str = Field(
        "",
        title="Pictures",
        description="Which pictures: numbers such as 3,17, or a filter such as flagged:loop; empty for all.",
    )
    preview: tuple[str, ...] = Field(
        (),
        title="Preview",
        description="Compare up to 3 settings on 4 pictures without writing a caption; each a JSON object of fields of "
        'this section, such as {"temperature": 0.2}.',
        max_length=MOST_PREVIEWS,
    )
    endpoint: str = Field(
        "",
        title="Endpoint",
        description="An OpenAI-compatible server such as http://localhost:8000/v1 (vLLM, Ollama, LM Studio) that "
        "describes the pictures instead of this machine; its key comes from $CAPTION_API_KEY.",
    )
    devices: int = Field(
        1, title="Devices", description="GPUs (or processes, on a CPU) that share the pictures.", ge=1, le=64
    )

    @field_validator("endpoint")
    @classmethod
    def _endpoint_is_an_address(cls, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        if endpoint and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("the endpoint is an address such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("the endpoint holds no key or password: put the key into $CAPTION_API_KEY")
        return endpoint.rstrip("/")

    @field_validator("preview")
    @classmethod
    def _previews_are_objects(cls, preview: tuple[str, ...]) -> tuple[str, ...]:
        for text in preview:
            changes = parse_changes(text)
            unknown = sorted(set(changes) - set(cls.model_fields) | {"preview", "pictures"} & set(changes))
            if unknown:
                raise ValueError(f"a preview cannot change {unknown[0]!r}")
        return preview

    @model_validator(mode="after")
    def _fields_fit_together(self) -> "CaptionConfig":
        if self.preset != "none" and self.prompt != PROMPT:
            raise ValueError("prompt and preset exclude each other: leave one of them out")
        if self.several == "draw" and not self.more_prompts:
            raise ValueError("several=draw needs more_prompts to draw from")
        asked = "".join((self.prompt if self.preset == "none" else "", *self.more_prompts))
        if self.tagger and "{tags}" not in asked:
            raise ValueError("a tagger needs {tags} somewhere in the prompt; presets have none")
        if "{tags}" in asked and not self.tagger:
            raise ValueError("{tags} in the prompt needs a tagger, such as tagger=wd-vit")
        if self.endpoint and (self.quantize != "none" or self.devices > 1):
            raise ValueError("quantize and devices are up to the server behind the endpoint: leave them out")
        try:
            self.previews()
        except ValidationError as error:
            wrong = error.errors()[0]
            field = ".".join(map(str, wrong["loc"]))
            raise ValueError(f"a preview is not valid: {field} {wrong['msg']}".replace("  ", " ")) from None
        return self

    def asked(self, trigger: str) -> tuple[str, ...]:
        """The prompts, with the trigger word in its places.

        Raises:
            InputError: one asks for a trigger word, and there is none.
        """
        first = self.prompt if self.preset == "none" else prompt_for(self.preset, self.captioner, trigger)
        return tuple(filled(prompt, trigger) for prompt in (first, *self.more_prompts))

    def previews(self) -> "list[CaptionConfig]":
        """The section with the changes of each entry of `preview`."""
        plain = self.model_dump(exclude={"preview"})
        return [CaptionConfig(**plain | parse_changes(text)) for text in self.preview]


def parse_changes(text: str) -> dict[str, Any]:
    """The fields that one entry of `preview` changes.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        changes = json.loads(text)
    except json.JSONDecodeError:
        changes = None
    if not isinstance(changes, dict):
        raise ValueError(f'a preview is a JSON object such as {{"temperature": 0.2}}, not {text!r}')
    return changes
