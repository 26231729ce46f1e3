"""BLIP-2 with an OPT decoder: short captions, without a prompt (Li et al. 2023, arXiv 2301.12597)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
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

MODEL_TYPES = ("blip-2",)
KEEP = ("vision_model", "qformer", "language_projection", "language_model.lm_head")


def build(folder: Path, device: torch.device, quantize: Quantize = "none") -> "Blip2":
    """Open a BLIP-2.

    Raises:
        ModelError: the folder is damaged or incomplete, or its decoder is T5.
    """
    opened = open_model(
        folder,
        device,
        quantize,
        AutoModelForImageTextToText,
        # Its own processor would add nothing but a prompt's tokens.
        lambda: AutoImageProcessor.from_pretrained(folder, backend="pil"),
        KEEP,
    )
    if opened.model.language_model.config.is_encoder_decoder:
        raise ModelError(f"captioner {folder} is a BLIP-2 with T5, which needs a prompt", "Take one with OPT: blip-2.")
    return Blip2(opened.processor, AutoTokenizer.from_pretrained(folder), opened.model)


class Blip2:
    """A picture encoder that fills a fixed number of places before the text."""

    def __init__(self, processor: Any, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
        self.processor, self.tokenizer, self.model = processor, tokenizer, model
        self.ends = set_endings(model.language_model, tokenizer)

    def describe(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer a request; prompts are not read."""
        pictures = [request.image for request in requests]
        pixels = self.processor(pictures, return_tensors="pt")["pixel_values"]
        inputs = {"pixel_values": pixels.to(self.model.device, self.model.dtype)}
        # The places of the picture, then the token that begins the text.
        start = self.model.config.num_query_tokens + 1
        written = generate(self.model, inputs, requests, self.ends, start)
        return [Answer(self.tokenizer.decode(each.ids, skip_special_tokens=True), each.end) for each in written]
