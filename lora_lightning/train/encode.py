"""Filling the cache: each picture's latents, an entry for every bucket and view, and each text's embedding."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lora_lightning.datasets.buckets import Bucket, beyond, choose
from lora_lightning.datasets.crops import Augment, View, views
from lora_lightning.datasets.cut import cut
from lora_lightning.datasets.images import background_of
from lora_lightning.models.base import Family, TextEmbedding
from lora_lightning.runs.reporter import Reporter
from lora_lightning.train.cache import Cache
from lora_lightning.train.examples import Example, check_unchanged
from lora_lightning.train.masks import latent_mask
from lora_lightning.train.ranks import Ranks
from lora_lightning.train.texts import Wording

log = logging.getLogger("lora_lightning")

PIXELS_VERSION = 1
"""Part of every key; raise it when `pixels` gives other pixels for the same file and view."""


@dataclass(frozen=True)
class Beside:
    """A file that belongs to a picture, and the content it had."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class ImageEntry:
    """A picture's latents in the cache, and how they are made."""

    path: Path
    source: Path
    sha256: str
    view: View
    mask: Beside | None = None
    reference: Beside | None = None

    def make(self, family: Family) -> dict[str, Tensor]:
        """Mean and deviation of the latents; with a mask what of them is learned, and the reference's clean latents.

        Raises:
            DatasetError: the picture, or what belongs to it, is no longer what it was.
        """
        check_unchanged(self.source, self.sha256)
        for other in filter(None, (self.mask, self.reference)):
            check_unchanged(other.path, other.sha256)
        posterior = family.encode_image(pixels(self.source, self.view)[None])
        tensors = {"mean": posterior.mean_BCHW, "std": posterior.std_BCHW}
        if self.mask:
            height, width = posterior.mean_BCHW.shape[-2:]
            is_alpha = self.mask.path == self.source
            tensors["mask"] = latent_mask(self.mask.path, self.view, height, width, alpha=is_alpha)
        if self.reference:
            tensors["reference"] = family.encode_image(pixels(self.reference.path, self.view)[None]).mean_BCHW
        return tensors


@dataclass(frozen=True)
class TextEntry:
    """A text's embedding in the cache, and how it is made."""

    path: Path
    text: str

    def make(self, family: Family) -> dict[str, Tensor]:
        """The sequence and the pooled embedding."""
        text = family.encode_text([self.text])
        return {"sequence": text.sequence_BLD, "pooled": text.pooled_BD}


Entry = ImageEntry | TextEntry


@dataclass(frozen=True)
class Item:
    """One picture at one size.

    Attributes:
        bucket: its size.
        views: its cuts, mirrored and not; one is drawn each time, and the first is the plain one.
        captions: its captions, each in every order of its tags; one is drawn each time, and the first is the caption
            as it is written.
        repeats: how often it comes in an epoch.
        weight: of its loss.
    """

    bucket: Bucket
    views: tuple[ImageEntry, ...]
    captions: tuple[tuple[TextEntry, ...], ...]
    repeats: int = 1
    weight: float = 1.0

    @property
    def file(self) -> str:
        """The picture's file inside images/."""
        return self.views[0].source.name

    @property
    def latents(self) -> Path:
        """Where the latents of its plain view are cached."""
        return self.views[0].path

    @property
    def text(self) -> Path:
        """Where the embedding of its caption as written is cached."""
        return self.captions[0][0].path


def encode_images(
    examples: Sequence[Example],
    images: Path,
    resolutions: Sequence[int],
    texts: Mapping[str, Path],
    *,
    family: Family,
    cache: Cache,
    reporter: Reporter,
    augment: Augment = Augment(),  # noqa: B008 - frozen
    wording: Wording = Wording(),  # noqa: B008 - frozen
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    repeats: int = 1,
    weight: float = 1.0,
) -> list[Item]:
    """Cache the latents of every picture at each of its buckets, in each of its views.

    Args:
        examples: the pictures.
        images: the folder that their files lie in.
        resolutions: wanted training resolutions, pixels.
        texts: the cached embedding of each text.
        family: whose VAE encodes.
        cache: where entries are kept.
        reporter: of the run.
        augment: which views of a picture there are.
        wording: which texts belong to a picture.
        ranks: the processes that share the work.
        repeats: how often each picture comes in an epoch.
        weight: of their loss.
    """
    encoder = ranks.main_first(lambda: cache.identity(family.image_encoder))
    items = []
    for example in examples:
        captions = tuple(tuple(TextEntry(texts[text], text) for text in each) for each in wording.of(example.captions))
        for bucket in choose(example.width, example.height, resolutions, enlarge=augment.enlarge):
            entries = _entries(example, images, bucket, augment, cache, encoder)
            items.append(Item(bucket, entries, captions, repeats, weight))
    if not augment.enlarge:
        _tell_what_is_too_small(examples, resolutions)
    fill("caching latents", [entry for item in items for entry in item.views], family, cache, reporter, ranks)
    return items


def encode_texts(
    texts: Iterable[str],
    *,
    family: Family,
    cache: Cache,
    reporter: Reporter,
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
) -> dict[str, Path]:
    """Cache the embedding of every different text."""
    encoder = ranks.main_first(lambda: cache.identity(family.text_encoder))
    entries = [TextEntry(cache.path("texts", text=text, encoder=encoder), text) for text in sorted(set(texts))]
    fill("caching captions", entries, family, cache, reporter, ranks)
    return {entry.text: entry.path for entry in entries}


def fill(phase: str, entries: Sequence[Entry], family: Family, cache: Cache, reporter: Reporter, ranks: Ranks) -> None:
    """Make the entries that are absent or damaged, each process its share; afterwards all are there."""
    reporter.phase(phase, len(entries))
    with ranks.together():
        for done, entry in enumerate(ranks.share(entries), start=1):
            reporter.check_stop()
            cache.ensure(entry.path, lambda entry=entry: entry.make(family))  # type: ignore[misc]
            reporter.advance(min(done * ranks.count, len(entries)))


def embedded(tensors: Mapping[str, Tensor]) -> TextEmbedding:
    """What the cache holds of a text."""
    return TextEmbedding(tensors["sequence"], tensors["pooled"])


def pixels(source: Path, view: View) -> Tensor:
    """The picture, resized, cut and turned, as RGB in [-1, 1], shape (3, H, W), fp32."""
    return torch.from_numpy(np.array(cut(source, view))).permute(2, 0, 1).float() / 127.5 - 1


def _entries(
    example: Example, images: Path, bucket: Bucket, augment: Augment, cache: Cache, encoder: str
) -> tuple[ImageEntry, ...]:
    """The entries of a picture at one size; their names hold all that the latents depend on."""
    size, source = (example.width, example.height), images / example.file
    folder = images.parent
    mask = Beside(folder / example.mask, example.mask_sha256) if example.mask else None
    reference = Beside(folder / example.reference, example.reference_sha256) if example.reference else None
    return tuple(
        ImageEntry(
            cache.path(
                "latents",
                picture=example.sha256,
                background=background_of(example.file),
                view=asdict(view),
                mask=[example.mask_sha256, example.mask == f"images/{example.file}"],
                reference=example.reference_sha256,
                encoder=encoder,
                version=PIXELS_VERSION,
            ),
            source,
            example.sha256,
            view,
            mask,
            reference,
        )
        for view in views(*size, bucket, augment, centre=example.centre, key=example.sha256)
    )


def _tell_what_is_too_small(examples: Sequence[Example], resolutions: Sequence[int]) -> None:
    """No picture is left out, but some may not train at every resolution."""
    missed = Counter(
        side for example in examples for side in beyond(example.width, example.height, sorted(set(resolutions)))
    )
    for resolution, count in sorted(missed.items()):
        log.info("%d of %d pictures are too small for %d pixels", count, len(examples), resolution)
