"""Florence-2: small, fast and under MIT; it knows tasks, not prompts (Xiao et al. 2023, arXiv 2311.06242).

Only checkpoints in transformers' own format open, those of `florence-community`; `microsoft/Florence-2-*` needs code of
its own that fails since transformers 5.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from lora_lightning.caption.base import Answer, Quantize, Request
from lora_lightning.caption.captioners._models import generate, open_model, refuse_quantize, set_endings
from lora_lightning.caption.presets import TASKS

MODEL_TYPES = ("florence2",)

log = logging.getLogger("lora_lightning")


def build(folder: Path, device: torch.device, quantize: Quantize = "none") -> "Florence2":
    """Open a Florence-2.

    Raises:
        ModelError: the folder is damaged or incomplete.
        InputError: it should be quantised.
    """
    refuse_quantize("Florence-2", quantize)
    opened = open_model(
        folder,
        device,
        quantize,
        AutoModelForImageTextToText,
        lambda: AutoProcessor.from_pretrained(folder, backend="pil"),
        (),
    )
    return Florence2(opened.processor, opened.model)


class Florence2:
    """An encoder and decoder that is told a task."""

    def __init__(self, processor: ProcessorMixin, model: PreTrainedModel) -> None:
        self.processor, self.model = processor, model
        self.ends = set_endings(model, processor.tokenizer)

    def describe(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer a request."""
        inputs = self.processor(
            text=[task(request.prompt) for request in requests],
            images=[request.image for request in requests],
            return_tensors="pt",
            padding=True,
        ).to(self.model.device, self.model.dtype)
        # The decoder begins with one token that is not part of the text.
        written = generate(self.model, dict(inputs), requests, self.ends, start=1)
        tokenizer = self.processor.tokenizer
        return [Answer(tokenizer.decode(each.ids, skip_special_tokens=True), each.end) for each in written]


def task(prompt: str) -> str:
    """The task that a prompt stands for: itself, or, of a free prompt, the most detailed caption."""
    if prompt in TASKS:
        return prompt
    log.debug("Florence-2 knows no prompt %r and does %s", prompt, TASKS[-1])
    return TASKS[-1]
