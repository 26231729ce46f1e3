"""What a run takes on the disk and in RAM, by arithmetic on the model's configuration; no weight is read.

A latent is kept as mean and deviation in fp32, a text as the tokens that the transformer reads.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from lora_lightning.checks.model import pipeline_of
from lora_lightning.datasets.buckets import tally
from lora_lightning.datasets.store import Picture
from lora_lightning.datasets.tokens import T5_LIMIT, meters
from lora_lightning.models.config import PUBLISHED, resolve_base
from lora_lightning.models.memory import STATE
from lora_lightning.models.shape import adapter_weights, shape_of
from lora_lightning.models.source import CONFIGS, CONFIGURED
from lora_lightning.recipe import Recipe
from lora_lightning.train.texts import Wording

CHECKPOINTS = 3
"""Two are kept, and a third is written before one of them goes."""
SAMPLE_BYTES = 1.5
"""Of a pixel of a sample, as PNG."""


@dataclass(frozen=True)
class Shapes:
    """What of a base model the sizes depend on.

    Attributes:
        latent_bytes: of a picture's latents for each of its pixels.
        text_bytes: of a text, for each byte of a number.
        transformer: its configuration.
        flux1: whether it is of that family.
    """

    latent_bytes: float
    text_bytes: int
    transformer: dict[str, Any]
    flux1: bool


def shapes_of(base: str) -> Shapes | None:
    """Those of a base model; None where its configuration is not on this machine."""
    transformer, vae = config_of(base, "transformer"), config_of(base, "vae")
    if not transformer or not vae:
        return None
    flux1 = pipeline_of(base) in ("FluxPipeline", "FluxKontextPipeline")
    scale = 2 ** (len(vae["block_out_channels"]) - 1)
    tokens = meters(resolve_base(base)).t5.limit if flux1 else T5_LIMIT
    numbers = tokens * int(transformer["joint_attention_dim"]) + int(transformer.get("pooled_projection_dim") or 0)
    return Shapes(2 * 4 * int(vae["latent_channels"]) / scale**2, numbers, transformer, flux1)


def cache_bytes(recipe: Recipe, pictures: Sequence[Picture], shapes: Shapes) -> int:
    """Latents of every picture at every size in every view, and every text in every wording."""
    data = recipe.dataset
    counts = tally(((picture.width, picture.height) for picture in pictures), data.resolutions, enlarge=data.enlarge)
    views = data.crops * (2 if data.flip else 1)
    pixels = views * sum(bucket.width * bucket.height * count for bucket, count in counts.items())
    wording = Wording(data.shuffle_tags, data.keep_tags, recipe.seed)
    texts = {p.caption for p in pictures}
    if data.shuffle_tags:
        texts = {text for caption in texts for text in wording.of([caption])[0]}
    number = 2 if recipe.train.precision == "bf16-mixed" else 4
    told = (2 if recipe.train.preservation else 1) * len(texts) + len(recipe.sample.prompts) + 1
    latents = pixels * shapes.latent_bytes * (1.5 if data.references else 1)
    return round(latents) + told * shapes.text_bytes * number


def learned(recipe: Recipe, shapes: Shapes) -> int | None:
    """How many numbers a LoRA learns; None for what no preset names."""
    lora = recipe.lora
    if lora.kind not in ("lora", "dora") or lora.modules or lora.ranks:
        return None
    return adapter_weights(shape_of(shapes.transformer), lora.targets, lora.rank)


def run_bytes(recipe: Recipe, weights: int) -> int:
    """Checkpoints, the LoRA file and samples of a run whose adapter has so many numbers."""
    train, sample = recipe.train, recipe.sample
    checkpoint = weights * (4 + STATE[train.optimizer] + (4 if train.ema_decay else 0))
    drawn = 1 + (train.plan.steps // train.sample_every if train.sample_every else 0)
    pictures = drawn * len(sample.prompts) * sample.width * sample.height * SAMPLE_BYTES
    return CHECKPOINTS * checkpoint + 2 * weights * (2 if train.precision == "bf16-mixed" else 4) + round(pictures)


def weight_bytes(base: str, files: Sequence[str] = ()) -> dict[str, int]:
    """The size of each part's weights, as far as they are on this machine."""
    folder = _folder(base)
    parts = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()} if folder else {}
    sizes = {name: sum(file.stat().st_size for file in path.glob("*.safetensors")) for name, path in parts.items()}
    singles = {path: Path(path).expanduser() for path in files if path}
    return sizes | {name: path.stat().st_size for name, path in singles.items() if path.is_file()}


def _folder(base: str) -> Path | None:
    place = resolve_base(base)
    if Path(place).is_dir():
        return Path(place)
    try:
        index = try_to_load_from_cache(place, "model_index.json")
    except ValueError:  # neither a folder nor a Hub id
        return None
    return Path(index).parent if isinstance(index, str) else None


def config_of(base: str, part: str) -> dict[str, Any]:
    """The configuration of a part: the model's own, else the one that the package has of a published model."""
    short = next((name for name, repo in PUBLISHED.items() if repo == resolve_base(base)), "")
    own = _folder(base)
    folders = [*([own] if own else []), *(CONFIGS / name for name in CONFIGURED.get(short, ()))]
    files = (folder / part / "config.json" for folder in folders)
    found: dict[str, Any] = next((json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()), {})
    return found
