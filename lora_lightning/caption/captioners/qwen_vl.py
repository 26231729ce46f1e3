"""Qwen2.5-VL and Qwen3-VL: they follow free instructions (Bai et al. 2025, arXiv 2502.13923 and 2511.21631).

Their processors import torchvision for videos, which is no part of this installation; so the inputs are put together
here from the tokenizer and the picture processor, in the same way on every machine.

Shapes: B batch, L tokens (padded on the left), P patches of all pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lora_lightning.caption.base import Answer, Quantize, Request
from lora_lightning.caption.captioners._models import generate, open_model, set_endings
from lora_lightning.errors import ModelError
from lora_lightning.runs.files import read_json

MODEL_TYPES = ("qwen2_5_vl", "qwen3_vl")
KEEP = ("model.visual", "lm_head")

PLACE = "<|image_pad|>"
"""Stands for the picture: once in the template, then once for each token that the picture becomes."""

MOST_PIXELS = 1280 * 28 * 28
"""A megapixel, the processor's default; checkpoints allow 13, at 13 times the time."""


def build(folder: Path, device: torch.device, quantize: Quantize = "none") -> "QwenVl":
    """Open a Qwen2.5-VL or Qwen3-VL.

    Raises:
        ModelError: the folder is damaged or incomplete.
    """
    opened = open_model(folder, device, quantize, AutoModelForImageTextToText, lambda: _open_processor(folder), KEEP)
    return QwenVl(opened.processor, opened.model)


@dataclass(frozen=True)
class Processor:
    """What makes tokens of text, and patches of pictures."""

    tokenizer: PreTrainedTokenizerBase
    pictures: Any


def _open_processor(folder: Path) -> Processor:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # Older folders keep the template that knows pictures in a file that only the whole processor reads.
    template = read_json(folder / "chat_template.json").get("chat_template")
    if template:
        tokenizer.chat_template = template
    tokenizer.padding_side = "left"  # on the right, shorter rows get wrong captions without an error
    pictures = AutoImageProcessor.from_pretrained(folder, backend="pil")
    size = dict(pictures.size)
    pictures.size = size | {"longest_edge": min(size["longest_edge"], MOST_PIXELS)}
    return Processor(tokenizer, pictures)


class QwenVl:
    """A Qwen-VL with its processor."""

    def __init__(self, processor: Processor, model: PreTrainedModel) -> None:
        self.processor, self.model = processor, model
        self.tokenizer = processor.tokenizer
        self.ends = set_endings(model, self.tokenizer)

    def describe(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer a request; each depends on its own picture, prompt and seed."""
        inputs = {name: tensor.to(self.model.device) for name, tensor in self.inputs(requests).items()}
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        written = generate(self.model, inputs, requests, self.ends, start=inputs["input_ids"].shape[1])
        return [Answer(self.tokenizer.decode(each.ids, skip_special_tokens=True), each.end) for each in written]

    def inputs(self, requests: Sequence[Request]) -> dict[str, torch.Tensor]:
        """What the model reads.

        Returns:
            `input_ids`, `attention_mask` and `mm_token_type_ids` (1 where the picture is), all BL; `pixel_values` (P
            and the numbers of a patch); `image_grid_thw` (B3: frames, rows and columns of patches).
        """
        pictures = self.processor.pictures([_wide_enough(request.image) for request in requests], return_tensors="pt")
        tokens_B = (pictures["image_grid_thw"].prod(dim=1) // self.processor.pictures.merge_size**2).tolist()
        texts = [
            self.text(request.prompt).replace(PLACE, PLACE * tokens)
            for request, tokens in zip(requests, tokens_B, strict=True)
        ]
        inputs = self.tokenizer(texts, padding="longest", return_tensors="pt", add_special_tokens=False)
        place_BL = (inputs["input_ids"] == self.tokenizer.convert_tokens_to_ids(PLACE)).long()
        assert place_BL.sum(dim=1).tolist() == tokens_B, "each picture has one token a merged patch"
        names = ("input_ids", "attention_mask")
        return {name: inputs[name] for name in names} | {"mm_token_type_ids": place_BL} | dict(pictures)

    def text(self, prompt: str) -> str:
        """The conversation in the model's own template.

        Raises:
            ModelError: the template makes no place for one picture.
        """
        parts = [{"type": "image"}, {"type": "text", "text": prompt}]
        messages = [{"role": "user", "content": parts}]
        text = str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        if text.count(PLACE) != 1:
            raise ModelError(
                "the captioner's chat template makes no place for one picture and the prompt",
                f"Take {PLACE} out of caption.prompt if it is there, or use another captioner.",
            )
        return text


def _wide_enough(image: Image.Image) -> Image.Image:
    """The picture itself; a strip more than 200 times as long as wide, which Qwen refuses, is squeezed to that."""
    short, long = sorted(image.size)
    if long <= 200 * short:
        return image
    side = -(-long // 200)
    return image.resize((side, image.height) if image.width == short else (image.width, side))
