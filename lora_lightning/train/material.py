"""What a run trains on, from frozen examples to cached entries: pictures in their views, captions in their wordings."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_lightning.errors import DatasetError, InputError
from lora_lightning.models.base import Family, TextEmbedding
from lora_lightning.models.sampling import Shot
from lora_lightning.runs.reporter import Reporter
from lora_lightning.train.cache import Cache
from lora_lightning.train.datamodule import Reading
from lora_lightning.train.encode import Item, TextEntry, embedded, encode_images, encode_texts
from lora_lightning.train.examples import Example
from lora_lightning.train.mend import Mender
from lora_lightning.train.parts import Part
from lora_lightning.train.ranks import Ranks
from lora_lightning.train.shots import SheetRow
from lora_lightning.train.texts import Wording, with_class_word

log = logging.getLogger("lora_lightning")


def check_enough(dataset: str, judged: Sequence[str], trigger: str, preservation: float) -> None:
    """Refuse what cannot be trained with what there is.

    Args:
        dataset: by name.
        judged: what needs held-out pictures, where there are none.
        trigger: the trigger word.
        preservation: above 0 it needs one.

    Raises:
        InputError: something is missing.
    """
    if not dataset:
        raise DatasetError("the recipe names no dataset", "Add dataset.name=NAME; `import NAME PICTURES` makes one.")
    if preservation and not trigger:
        raise InputError("train.preservation needs a trigger word", "Set trigger=WORD, or train.preservation=0.")
    if judged:
        raise InputError(
            f"{judged[0]} needs held-out pictures, and there are none", "Set dataset.validation_share=0.15."
        )


@dataclass(frozen=True)
class Captions:
    """How captions are used.

    Attributes:
        wording: which texts a caption may become.
        dropout: share of the samples that see the empty caption.
        neutral: for the preservation, trigger and class word; None for none.
    """

    wording: Wording = Wording()  # noqa: RUF009 - frozen
    dropout: float = 0.0
    neutral: tuple[str, str] | None = None


@dataclass(frozen=True)
class Material:
    """What training reads: pictures, captions, and the embedding of every text by the text."""

    items: list[Item]
    reading: Reading
    texts: dict[str, Path]


@dataclass(frozen=True)
class Prepared:
    """Everything that training reads: what is trained on, and what is drawn."""

    examples: list[Example]
    material: Material
    held_out: frozenset[str]
    shots: list[Shot]
    rows: list[SheetRow]
    mender: Mender

    @property
    def trained(self) -> list[Item]:
        """What is not held out."""
        return [item for item in self.material.items if item.views[0].sha256 not in self.held_out]

    @property
    def unseen(self) -> list[Item]:
        """What is."""
        return [item for item in self.material.items if item.views[0].sha256 in self.held_out]

    def embedding(self, prompt: str) -> TextEmbedding:
        """Of a prompt that is drawn."""
        return embedded(self.mender(TextEntry(self.material.texts[prompt], prompt)))


def encode(
    parts: Sequence[Part],
    resolutions: Sequence[int],
    captions: Captions,
    prompts: Iterable[str],
    *,
    family: Family,
    cache: Cache,
    reporter: Reporter,
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    reader: Family | None = None,
) -> Material:
    """Cache all that the encoders give; they are let go before the transformer comes.

    Args:
        parts: the datasets.
        resolutions: wanted training resolutions, pixels.
        captions: how they are used.
        prompts: other texts that are needed.
        family: whose encoders are used.
        cache: where entries are kept.
        reporter: of the run.
        ranks: the processes that share the work.
        reader: reads the texts, where the device of `family` has no room for that.
    """
    shown = {
        text
        for part in parts
        for example in part.examples
        for wordings in captions.wording.of(example.captions)
        for text in wordings
    }
    shown |= {""} if captions.dropout else set()
    neutral = {text: with_class_word(text, *captions.neutral) for text in shown} if captions.neutral else {}
    wanted = {*shown, *neutral.values(), *prompts}
    if reader:
        log.info("the text encoders are larger than what the GPU has free: captions are read on the CPU, slowly, once")
    texts = encode_texts(wanted, family=reader or family, cache=cache, reporter=reporter, ranks=ranks)
    (reader or family).release()
    items = [
        item
        for part in parts
        for item in encode_images(
            part.examples,
            part.dataset.images,
            resolutions,
            texts,
            family=family,
            cache=cache,
            reporter=reporter,
            augment=part.augment,
            wording=captions.wording,
            ranks=ranks,
            repeats=part.repeats,
            weight=part.weight,
        )
    ]
    family.release()
    reading = Reading(
        captions.dropout,
        TextEntry(texts[""], "") if captions.dropout else None,
        {text: TextEntry(texts[instead], instead) for text, instead in neutral.items()},
    )
    return Material(items, reading, texts)
