"""Filling the cache: every picture's latents, one entry a bucket, and every text's embedding."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lora_lightning.datasets.buckets import Bucket, CropBox, choose, crop_box
from lora_lightning.datasets.images import open_rgb
from lora_lightning.models.base import Family, TextEmbedding
from lora_lightning.runs.reporter import Reporter
from lora_lightning.train.cache import Cache, read
from lora_lightning.train.examples import Example


@dataclass(frozen=True)
class Item:
    """One picture at one size: where its latents and its caption's embedding are cached."""

    bucket: Bucket
    latents: Path
    text: Path


def encode_images(
    examples: Sequence[Example],
    images: Path,
    resolutions: Sequence[int],
    texts: Mapping[str, Path],
    *,
    family: Family,
    cache: Cache,
    reporter: Reporter,
) -> list[Item]:
    """Cache the latents of every picture at each of its buckets.

    Args:
        examples: the pictures.
        images: the folder that their files lie in.
        resolutions: wanted training resolutions, pixels.
        texts: the cached embedding of each caption.
        family: whose VAE encodes.
        cache: where entries are kept.
        reporter: of the run.
    """
    wanted = [
        (example, bucket) for example in examples for bucket in choose(example.width, example.height, resolutions)
    ]
    encoder = cache.identity(family.image_encoder)
    reporter.phase("caching latents", len(wanted))
    items = []
    for done, (example, bucket) in enumerate(wanted, start=1):
        reporter.check_stop()
        crop = crop_box(example.width, example.height, bucket)
        path = cache.path("latents", picture=example.sha256, crop=asdict(crop), encoder=encoder)

        def make(source: Path = images / example.file, crop: CropBox = crop) -> dict[str, Tensor]:
            posterior = family.encode_image(pixels(source, crop)[None])
            return {"mean": posterior.mean_BCHW, "std": posterior.std_BCHW}

        cache.ensure(path, make)
        items.append(Item(bucket, path, texts[example.caption]))
        reporter.advance(done)
    return items


def encode_texts(texts: Iterable[str], *, family: Family, cache: Cache, reporter: Reporter) -> dict[str, Path]:
    """Cache the embedding of every different text."""
    different = sorted(set(texts))
    encoder = cache.identity(family.text_encoder)
    reporter.phase("caching captions", len(different))
    paths = {}
    for done, text in enumerate(different, start=1):
        reporter.check_stop()
        path = paths[text] = cache.path("texts", text=text, encoder=encoder)

        def make(text: str = text) -> dict[str, Tensor]:
            embedding = family.encode_text([text])
            return {"sequence": embedding.sequence_BLD, "pooled": embedding.pooled_BD}

        cache.ensure(path, make)
        reporter.advance(done)
    return paths


def embedding(path: Path) -> TextEmbedding:
    """A cached text embedding, of one text."""
    tensors = read(path)
    return TextEmbedding(tensors["sequence"], tensors["pooled"])


def pixels(source: Path, crop: CropBox) -> Tensor:
    """The picture, resized and cut, as RGB in [-1, 1], shape (3, H, W), fp32."""
    resized = open_rgb(source).resize((crop.resized_width, crop.resized_height), Image.Resampling.LANCZOS)
    cut = resized.crop((crop.left, crop.top, crop.right, crop.bottom))
    return torch.from_numpy(np.array(cut)).permute(2, 0, 1).float() / 127.5 - 1
