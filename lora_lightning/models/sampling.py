"""Drawing pictures with the family's stock pipeline, without touching anything that training depends on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, FluxKontextPipeline
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lora_lightning.models.base import TextEmbedding
from lora_lightning.models.device import isolated_rng
from lora_lightning.models.lora import without_assistant
from lora_lightning.runs.files import write_atomic


@dataclass(frozen=True)
class Shot:
    """One picture to draw; width and height in pixels, multiples of 16."""

    prompt: str
    seed: int
    width: int
    height: int
    steps: int
    guidance: float

    def facts(self) -> dict[str, str]:
        """What a PNG of it should say about itself."""
        return {name: str(value) for name, value in vars(self).items()}


def draw(
    pipeline: DiffusionPipeline,
    shot: Shot,
    text: TextEmbedding,
    between_steps: Callable[[], None] | None = None,
    reference: Image.Image | None = None,
) -> Image.Image:
    """Draw one picture.

    The noise comes from the shot's seed on the CPU, so that every device starts from the same; the global random
    state and the transformer's mode are left as they were.

    Args:
        pipeline: as `Family.pipeline` gives it, with whatever adapters are set on its transformer.
        shot: what to draw.
        text: the embedding of the shot's prompt.
        between_steps: called after each denoising step; may raise to give up.
        reference: a picture to edit, for models that take one; used at its own size.
    """

    def called(_pipeline: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if between_steps:
            between_steps()
        return tensors

    transformer = pipeline.transformer
    options: dict[str, Any] = {"image": reference} if reference else {}
    if isinstance(pipeline, FluxKontextPipeline):
        options |= {"_auto_resize": False, "max_area": shot.width * shot.height}
    if text.pooled_BD.shape[-1]:
        options["pooled_prompt_embeds"] = text.pooled_BD.to(transformer.device)
    training = transformer.training
    transformer.eval()
    try:
        with isolated_rng(), torch.no_grad(), without_assistant(transformer):
            pictures = pipeline(
                prompt_embeds=text.sequence_BLD.to(transformer.device),
                width=shot.width,
                height=shot.height,
                num_inference_steps=shot.steps,
                guidance_scale=shot.guidance,
                generator=torch.Generator("cpu").manual_seed(shot.seed),
                callback_on_step_end=called,
                **options,
            ).images
    finally:
        transformer.train(training)
    picture: Image.Image = pictures[0]
    return picture


def save_png(picture: Image.Image, path: Path, facts: Mapping[str, str]) -> Path:
    """Write a PNG, atomically, that carries `facts` as text chunks."""
    info = PngInfo()
    for name, value in facts.items():
        info.add_itxt(name, value)
    return write_atomic(path, lambda file: picture.save(file, format="PNG", pnginfo=info))
