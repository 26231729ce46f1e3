"""Drawing pictures with the family's stock pipeline, without touching anything that training depends on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, FluxImg2ImgPipeline, FluxKontextPipeline
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lora_lightning.datasets.buckets import Bucket, choose, crop_box
from lora_lightning.datasets.crops import View
from lora_lightning.datasets.cut import cut
from lora_lightning.datasets.images import open_rgb
from lora_lightning.models.base import TextEmbedding
from lora_lightning.models.device import isolated_rng
from lora_lightning.models.lora import without_assistant
from lora_lightning.runs.files import write_atomic


@dataclass(frozen=True)
class Shot:
    """One picture to draw.

    Attributes:
        prompt: what the text encoders read.
        seed: of the noise.
        width: pixels, a multiple of 16; `height` likewise.
        steps: of denoising.
        guidance: its scale.
        reference: the file of a picture to edit or to vary; empty for none.
        strength: 0 edits the reference; above, it is varied: noised to that share of the steps, which are then taken.
    """

    prompt: str
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    reference: str = ""
    strength: float = 0.0

    @property
    def shown(self) -> Image.Image:
        """The reference, scaled until it covers the picture and cut around its centre, as training sees one."""
        path = Path(self.reference)
        return cut(path, View(crop_box(*open_rgb(path).size, Bucket(self.width, self.height))))

    def in_its_shape(self) -> "Shot":
        """The same, its area in the shape of the reference, of which nothing is then cut off."""
        if not self.reference:
            return self
        side = round((self.width * self.height) ** 0.5)
        (bucket,) = choose(*open_rgb(Path(self.reference)).size, [side], enlarge=True)
        return replace(self, width=bucket.width, height=bucket.height)

    def facts(self) -> dict[str, str]:
        """What a PNG of it should say about itself; of the reference no more than its name."""
        facts = vars(self) | {"reference": Path(self.reference).name}
        return {name: str(value) for name, value in facts.items() if value or name not in ("reference", "strength")}


def draw(
    pipeline: DiffusionPipeline,
    shot: Shot,
    text: TextEmbedding,
    between_steps: Callable[[], None] | None = None,
) -> Image.Image:
    """Draw one picture.

    The noise comes from the shot's seed on the CPU, so that every device starts from the same; the global random
    state and the transformer's mode are left as they were.

    Args:
        pipeline: as `Family.pipeline` gives it, with whatever adapters are set on its transformer.
        shot: what to draw.
        text: the embedding of the shot's prompt.
        between_steps: called after each denoising step; may raise to give up.
    """

    def called(_pipeline: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if between_steps:
            between_steps()
        return tensors

    transformer = pipeline.transformer
    options: dict[str, Any] = {"image": shot.shown} if shot.reference else {}
    if shot.strength:
        pipeline = FluxImg2ImgPipeline(**pipeline.components)
        pipeline.set_progress_bar_config(disable=True)
        options["strength"] = shot.strength
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
