"""The WD taggers v3 of the ViT kind (SmilingWolf): booru tags, as a list or as grounding for a captioner's {tags}.

timm, which they were made with, imports torchvision, which is no part of this installation; their plain ViT is a
`TransformerEncoder` of torch with the weights under other names. The SwinV2, ConvNeXt and EVA02 ones are not opened.

Shapes: B batch, CHW a picture, N tags, D width, P patches.
"""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from lora_lightning.caption.base import Answer, Quantize, Request
from lora_lightning.caption.captioners._models import refuse_quantize
from lora_lightning.errors import ModelError
from lora_lightning.runs.files import read_json

MODEL_TYPES = ("vit_base_patch16_224", "vit_large_patch16_224", "vit_large_patch14_224")
"""`architecture` in the config.json of a timm model; its size comes from the weights."""

THRESHOLD = 0.35
GENERAL, CHARACTER = 0, 4
"""Categories of tags; the third, ratings, says nothing about the picture."""

_RENAMED = (("attn.qkv.", "self_attn.in_proj_"), ("attn.proj.", "self_attn.out_proj."), ("mlp.fc", "linear"))
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh")}


def build(folder: Path, device: torch.device, quantize: Quantize = "none") -> "WdTagger":
    """Open a tagger.

    Raises:
        ModelError: the folder is damaged or incomplete.
        InputError: it should be quantised.
    """
    refuse_quantize("a tagger", quantize)
    try:
        config = read_json(folder / "config.json")
        tags = _read_tags(folder / "selected_tags.csv")
        model = _Vit(load_file(folder / "model.safetensors"), config)
    except Exception as error:  # damaged files may raise anything
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"tagger {folder} cannot be opened: {first}", "Download it again.") from error
    if len(tags) != model.head.out_features:
        raise ModelError(f"tagger {folder} names {len(tags)} of {model.head.out_features} tags", "Download it again.")
    return WdTagger(model.eval().to(device), tags)


@dataclass(frozen=True)
class Tag:
    """One output: its name in words, and its category."""

    name: str
    category: int


def _read_tags(path: Path) -> list[Tag]:
    with path.open(newline="", encoding="utf-8") as file:
        # Emoticons such as >_< keep their underscores.
        return [
            Tag(name if len(name) < 4 else name.replace("_", " "), int(category))
            for name, category in ((row["name"], row["category"]) for row in csv.DictReader(file))
        ]


class WdTagger:
    """Names what is in a picture, the likeliest first."""

    def __init__(self, model: "_Vit", tags: Sequence[Tag]) -> None:
        self.model, self.tags = model, tags

    @torch.inference_mode()
    def describe(self, requests: Sequence[Request]) -> list[Answer]:
        """The tags of each picture, divided by commas; prompts and seeds are not read."""
        device = self.model.head.weight.device
        pixels_BCHW = torch.stack([prepare(request.image, self.model.side) for request in requests])
        chances_BN = self.model(pixels_BCHW.to(device)).sigmoid()
        return [Answer(", ".join(self._likely(chances_N))) for chances_N in chances_BN.cpu()]

    def _likely(self, chances_N: Tensor) -> list[str]:
        order = chances_N.argsort(descending=True, stable=True).tolist()
        found = [self.tags[place] for place in order if chances_N[place] >= THRESHOLD]
        return [tag.name for tag in found if tag.category in (GENERAL, CHARACTER)]


def prepare(image: Image.Image, side: int) -> Tensor:
    """A picture as the taggers were trained: padded to a square with white, bicubic, BGR, from -1 to 1 (CHW)."""
    edge = max(image.size)
    square = Image.new("RGB", (edge, edge), (255, 255, 255))
    square.paste(image, ((edge - image.width) // 2, (edge - image.height) // 2))
    small = square.resize((side, side), Image.Resampling.BICUBIC)
    rgb_HWC = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(side, side, 3)
    return rgb_HWC.flip(2).permute(2, 0, 1).float() / 127.5 - 1


class _Vit(nn.Module):
    """A ViT without a class token, its patches averaged (Dosovitskiy et al. 2020, arXiv 2010.11929)."""

    def __init__(self, weights: dict[str, Tensor], config: dict[str, Any]) -> None:
        super().__init__()
        patch, position = weights["patch_embed.proj.weight"], weights["pos_embed"]
        width, _, size, _ = patch.shape
        hidden, tags = len(weights["blocks.0.mlp.fc1.weight"]), len(weights["head.weight"])
        depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        self.side = math.isqrt(position.shape[1]) * size
        activation = _ACTIVATIONS[config.get("model_args", {}).get("act_layer", "gelu")]
        heads = width // 64
        block = nn.TransformerEncoderLayer(
            width, heads, hidden, 0.0, activation, layer_norm_eps=1e-6, batch_first=True, norm_first=True
        )
        self.patches = nn.Conv2d(3, width, size, size)
        self.position = nn.Parameter(torch.empty_like(position))
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, tags)
        self.load_state_dict({_renamed(name): tensor.float() for name, tensor in weights.items()})

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Logits of the tags (BN)."""
        patches_BPD = self.patches(pixels_BCHW).flatten(2).transpose(1, 2) + self.position
        logits_BN: Tensor = self.head(self.norm(self.blocks(patches_BPD)).mean(dim=1))
        return logits_BN


def _renamed(name: str) -> str:
    name = name.replace("patch_embed.proj.", "patches.").replace("pos_embed", "position")
    if name.startswith("blocks."):
        name = name.replace("blocks.", "blocks.layers.", 1)
        for old, new in _RENAMED:
            name = name.replace(old, new)
    return name
