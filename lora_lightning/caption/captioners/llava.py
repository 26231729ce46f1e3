"""Captioners of the LLaVA architecture: JoyCaption, captioner-mini, or any other folder that transformers opens.

Shapes: L tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature, PreTrainedModel, ProcessorMixin

from lora_lightning.caption.base import Quantize, Request
from lora_lightning.caption.captioners._models import open_model, set_endings
from lora_lightning.caption.decoder import Decoder
from lora_lightning.caption.streams import Rows
from lora_lightning.errors import ModelError

MODEL_TYPES = ("llava",)
KEEP = ("model.vision_tower", "model.multi_modal_projector", "lm_head")

LANCZOS = Image.Resampling.LANCZOS
"""As JoyCaption was trained."""

SYSTEM = "You are a helpful image captioner."
"""JoyCaption's own (fpgaminer/joycaption, README)."""


def build(folder: Path, device: torch.device, quantize: Quantize = "none") -> "Llava":
    """Open a captioner.

    Raises:
        ModelError: the folder is damaged or incomplete.
    """
    opened = open_model(
        folder,
        device,
        quantize,
        AutoModelForImageTextToText,
        # Pillow resizes the same on every machine; the torchvision backend has no LANCZOS on a GPU.
        lambda: AutoProcessor.from_pretrained(folder, backend="pil"),
        KEEP,
    )
    return Llava(opened.processor, opened.model, recordable=quantize == "none")


class Llava:
    """A LLaVA with its processor.

    Args:
        processor: of pictures and text.
        model: the LLaVA.
        recordable: whether its steps can become a CUDA graph.
    """

    def __init__(self, processor: ProcessorMixin, model: PreTrainedModel, *, recordable: bool = True) -> None:
        self.processor, self.model = processor, model
        self.tokenizer = processor.tokenizer
        self.ends = set_endings(model, self.tokenizer)
        self._recordable = recordable
        self._lock = Lock()

    def stream(self, size: int) -> Rows:
        """Describe `size` pictures at once, each answer depending on its own picture, prompt and seed."""
        decoder = Decoder(self.model, size, graph=self._recordable)
        return Rows(decoder, size, self.inputs, self.read, self.ends, self.model.device)

    def read(self, ids: Sequence[int]) -> str:
        """The text of tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def inputs(self, request: Request) -> BatchFeature:
        """What the model reads: `input_ids` (1L) and `pixel_values`."""
        text = self.text(request.prompt)
        image = self._resized(request.image)
        with self._lock:  # a fast tokenizer may fail when two threads use it at once
            inputs = self.processor(
                text=text,
                images=image,
                return_tensors="pt",
                resample=LANCZOS,
                add_special_tokens=not self._begins(text),
            )
        self._check(inputs["input_ids"], text)
        return inputs

    def _resized(self, image: Image.Image) -> Image.Image:
        """The picture in the size that the model reads, where that is one size for all: the costly part, ahead."""
        size = dict(self.processor.image_processor.size)
        if size.get("width") and size.get("height"):
            return image.resize((size["width"], size["height"]), LANCZOS)
        return image

    def text(self, prompt: str) -> str:
        """The conversation in the model's own template.

        JoyCaption's template takes plain strings and puts the picture before the user's words; templates that take
        lists of parts get the picture as a part.

        Raises:
            ModelError: the template makes no place for one picture.
        """
        plain = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
        parts = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
        for messages in (plain, parts):
            text = self._rendered(messages)
            if text.count(self.processor.image_token) == 1 and prompt.strip() in text:
                return text
        raise ModelError(
            "the captioner's chat template makes no place for one picture and the prompt",
            f"Take {self.processor.image_token} out of caption.prompt if it is there, or use another captioner.",
        )

    def _rendered(self, messages: list[dict[str, Any]]) -> str:
        try:
            return str(self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception:  # a template that expects messages of another form may raise anything
            return ""

    def _begins(self, text: str) -> bool:
        """Whether the template has written the BOS token already; the tokenizer would add a second one."""
        bos = self.tokenizer.bos_token
        return bool(bos) and text.startswith(bos)

    def _check(self, ids_1L: Tensor, text: str) -> None:
        """Our own invariants: what breaks them gives fluent nonsense, not an error."""
        ids = ids_1L[0].tolist()
        pictures = ids.count(self.tokenizer.convert_tokens_to_ids(self.processor.image_token))
        assert pictures == _picture_tokens(self.model.config), f"{pictures} picture tokens"
        bos = self.tokenizer.bos_token_id
        if bos is not None:
            adds = bos in self.tokenizer("").input_ids
            assert ids.count(bos) == int(adds or self._begins(text)), f"{ids.count(bos)} BOS tokens"


def _picture_tokens(config: Any) -> int:
    """Tokens that one picture becomes: a grid of patches; CLIP adds a class token, `default` drops the first."""
    vision = config.vision_config
    grid: int = (vision.image_size // vision.patch_size) ** 2
    has_class, drops_first = (
        vision.model_type == "clip_vision_model",
        config.vision_feature_select_strategy == "default",
    )
    return grid + int(has_class) - int(drops_first)
