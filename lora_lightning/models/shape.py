"""What memory and time depend on in a transformer, from its configuration; importing this needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Shape:
    """What of a transformer's configuration memory and time depend on.

    Attributes:
        doubles: number of double blocks; `singles` likewise.
        width: D.
        wide: outputs of a feed-forward's first linear, in D; `narrow` the inputs of its second.
        modulation: weights in the blocks that see one vector a picture.
        rest: weights outside the blocks.
        text_tokens: of a text at most.
    """

    doubles: int
    singles: int
    width: int
    wide: float
    narrow: float
    modulation: int
    rest: int
    text_tokens: int

    @property
    def blocks(self) -> int:
        """Of either kind."""
        return self.doubles + self.singles

    @cached_property
    def stream(self) -> int:
        """Weights that work on tokens in one of a double block's two streams, or in a single block."""
        return round((4 + self.wide + self.narrow) * self.width**2)

    @property
    def weights(self) -> int:
        """All of them."""
        return (2 * self.doubles + self.singles) * self.stream + self.modulation + self.rest


def shape_of(config: Mapping[str, Any]) -> Shape:
    """From a transformer's config.json, of FLUX.1 or FLUX.2."""
    flux2 = "Flux2" in str(config.get("_class_name", ""))
    doubles, singles = int(config["num_layers"]), int(config["num_single_layers"])
    d = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
    embeddings = 2 if config.get("guidance_embeds", flux2) else 1
    outside = 2 * int(config["in_channels"]) + int(config["joint_attention_dim"]) + 256 * embeddings
    if flux2:
        ratio = float(config.get("mlp_ratio", 3))
        return Shape(doubles, singles, d, 2 * ratio, ratio, 0, d * outside + (17 + embeddings) * d * d, 512)
    rest = d * (outside + int(config["pooled_projection_dim"])) + (3 + embeddings) * d * d
    return Shape(doubles, singles, d, 4, 4, (12 * doubles + 3 * singles) * d * d, rest, 512 if embeddings == 2 else 256)


def adapter_weights(shape: Shape, targets: str, rank: int) -> int:
    """How many numbers a LoRA learns: rank (inputs + outputs) for each linear that a preset names.

    In a stream four linears D -> D of attention, and a feed-forward; a single block's read and write both at once.
    """
    w, n, flux1 = shape.wide, shape.narrow, bool(shape.modulation)
    feed_forward = 2 + w + n
    single_attention = 6 if flux1 else (4 + w) + (2 + n)  # FLUX.2's stand in one linear with the feed-forward
    single_all = 6 + (1 + w) + (2 + n) if flux1 else single_attention
    attention, every = 16, 16 + 2 * feed_forward
    vector, vector_single = (14, 4) if flux1 else (0, 0)
    double, single = {
        "attention": (attention, single_attention),
        "modulation": (every + vector, single_all + vector_single),
        "content": (0, single_all),
        "style": (0, single_all),
    }.get(targets, (every, single_all))
    content = round(shape.singles * 10 / 38)
    singles = {"content": content, "style": shape.singles - content}.get(targets, shape.singles)
    shared = 2 * 7 + 4 if targets == "modulation" and not flux1 else 0
    return round(rank * shape.width * (double * shape.doubles + single * singles + shared))
