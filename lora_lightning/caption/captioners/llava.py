"""Captioners of the LLaVA architecture: JoyCaption, captioner-mini, or any other folder that transformers opens.

Shapes: B batch, L tokens (padded on the left).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    GenerationConfig,
    PreTrainedModel,
    ProcessorMixin,
)

from lora_lightning.caption.base import Request, Sampling
from lora_lightning.caption.noise import processors
from lora_lightning.errors import ModelError

SYSTEM = "You are a helpful image captioner."
"""JoyCaption's own (fpgaminer/joycaption, README)."""

SMALL_BYTES = 2 * 2**30


def build(folder: Path, device: torch.device) -> "Llava":
    """Open a captioner.

    On a GPU it works in bf16; on the CPU in bf16 too when it is large, for memory and speed, else in exact fp32.

    Raises:
        ModelError: the folder is damaged, incomplete, or holds another architecture.
    """
    weights_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    dtype = torch.float32 if device.type == "cpu" and weights_bytes < SMALL_BYTES else torch.bfloat16
    try:
        kind = AutoConfig.from_pretrained(folder).model_type
        if kind != "llava":
            raise ModelError(f"captioner {folder} is a {kind}, not a LLaVA", "Give a LLaVA such as joycaption.")
        # Pillow resizes the same on every machine; the torchvision backend has no LANCZOS on a GPU.
        processor = AutoProcessor.from_pretrained(folder, backend="pil")
        model, loading = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, device_map={"": device}, use_safetensors=True, output_loading_info=True
        )
    except (ModelError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # damaged files may raise anything
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"captioner {folder} cannot be opened: {first}", "Download it again.") from error
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise ModelError(f"captioner {folder} lacks {len(missing)} weights, such as {missing[0]}", "Download it again.")
    return Llava(processor, model)


class Llava:
    """A LLaVA with its processor."""

    def __init__(self, processor: ProcessorMixin, model: PreTrainedModel) -> None:
        self.processor, self.model = processor, model.eval()
        self.tokenizer = processor.tokenizer
        self.tokenizer.padding_side = "left"  # on the right, shorter rows get wrong captions without an error
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        # A checkpoint brings its own temperature, top-p, top-k and suppressed tokens; what the recipe says counts.
        self.model.generation_config = GenerationConfig(
            eos_token_id=model.generation_config.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            bos_token_id=self.tokenizer.bos_token_id,
        )

    @torch.inference_mode()
    def describe(self, requests: Sequence[Request], sampling: Sampling) -> list[str]:
        """One text a request; each depends on its own picture, prompt and seed."""
        inputs = self.inputs(requests).to(self.model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        ids_BL = self.model.generate(
            **inputs,
            max_new_tokens=sampling.max_tokens,
            do_sample=False,
            logits_processor=processors(sampling, [request.seed for request in requests], self.model.device),
        )
        written_BL = ids_BL[:, inputs["input_ids"].shape[1] :]
        texts: list[str] = self.tokenizer.batch_decode(
            written_BL, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return texts

    def inputs(self, requests: Sequence[Request]) -> BatchFeature:
        """What the model reads: `input_ids` and `attention_mask` (BL, padded left) and `pixel_values`."""
        texts = [self.text(request.prompt) for request in requests]
        inputs = self.processor(
            text=texts,
            images=[request.image for request in requests],
            return_tensors="pt",
            padding="longest",
            resample=Image.Resampling.LANCZOS,  # as JoyCaption was trained
            add_special_tokens=not self._begins(texts[0]),
        )
        self._check(inputs["input_ids"], inputs["attention_mask"], texts[0])
        return inputs

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

    def _check(self, ids_BL: Tensor, mask_BL: Tensor, text: str) -> None:
        """Our own invariants: what breaks them gives fluent nonsense, not an error."""
        assert bool((mask_BL.diff(dim=1) >= 0).all()), "rows must be padded on the left"
        pictures_B = (ids_BL == self.tokenizer.convert_tokens_to_ids(self.processor.image_token)).sum(dim=1)
        assert bool((pictures_B == _picture_tokens(self.model.config)).all()), f"picture tokens {pictures_B.tolist()}"
        if self.tokenizer.bos_token_id is not None:
            adds = self.tokenizer.bos_token_id in self.tokenizer("").input_ids
            begun_B = ((ids_BL == self.tokenizer.bos_token_id) & mask_BL.bool()).sum(dim=1)
            assert bool((begun_B == int(adds or self._begins(text))).all()), f"BOS tokens {begun_B.tolist()}"


def _picture_tokens(config: Any) -> int:
    """Tokens that one picture becomes: a grid of patches; CLIP adds a class token, `default` drops the first."""
    vision = config.vision_config
    grid: int = (vision.image_size // vision.patch_size) ** 2
    has_class, drops_first = (
        vision.model_type == "clip_vision_model",
        config.vision_feature_select_strategy == "default",
    )
    return grid + int(has_class) - int(drops_first)
