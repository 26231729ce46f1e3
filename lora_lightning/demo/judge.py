"""The examiner: a small convolutional classifier of what a world picture shows.

Trained apart from every model that it judges (see pretrain/judge.py), on true renderings only, and on the LoRA target
styles too: it can therefore say how much of a style a LoRA has learnt. Shapes: B pictures, 128 x 128 pixels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

HEADS = {"concept": 0, "style": 5, "place": 10, "background": 6, "colour": 10, "second_colour": 10}


class _Block(nn.Module):
    """Depthwise 5x5, then a pointwise expansion, with a residual path (as MobileNet and ConvNeXt have it)."""

    def __init__(self, width: int, grow: int = 2) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, width * grow, 1),
            nn.GELU(),
            nn.Conv2d(width * grow, width, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> the same shape."""
        return x + self.mix(x)


def _down(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 2, stride=2, bias=False), nn.BatchNorm2d(after))


class Judge(nn.Module):
    """Pictures f32 [B, 3, 128, 128] in [-1, 1] -> logits by head name, each [B, classes]."""

    def __init__(self, concepts: int, widths: tuple[int, int, int, int] = (24, 48, 96, 160)) -> None:
        super().__init__()
        a, b, c, d = widths
        self.body = nn.Sequential(
            nn.Conv2d(3, a, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(a),
            nn.GELU(),
            _Block(a),
            _down(a, b),
            _Block(b),
            _Block(b),
            _down(b, c),
            _Block(c),
            _Block(c),
            _down(c, d),
            _Block(d),
            _Block(d),
            _Block(d),
        )
        self.where = nn.Sequential(nn.Conv2d(d, 16, 1), nn.GELU(), nn.Flatten(), nn.Linear(16 * 64, 32), nn.GELU())
        self.norm = nn.LayerNorm(2 * d)
        sizes = dict(HEADS, concept=concepts)
        self.heads = nn.ModuleDict({name: nn.Linear(32 if name == "place" else 2 * d, n) for name, n in sizes.items()})

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits f32 [B, classes] by head name."""
        grid = self.body(pictures)
        whole = self.norm(torch.cat([grid.mean((2, 3)), grid.amax((2, 3))], 1))
        spot = self.where(grid)
        return {name: head(spot if name == "place" else whole) for name, head in self.heads.items()}


@dataclass(frozen=True)
class Names:
    """What the classes are called, by head."""

    concept: list[str]
    style: list[str]
    place: list[str]
    background: list[str]
    colour: list[str]


def save(judge: Judge, names: Names, folder: Path) -> None:
    """Write fp16 weights and the class names."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        key: value.half().contiguous() if value.is_floating_point() else value.contiguous()
        for key, value in judge.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    save_file(state, folder / "judge.safetensors")
    (folder / "names.json").write_text(json.dumps(vars(names), indent=1))


def load(folder: Path) -> tuple[Judge, Names]:
    """The judge in evaluation mode (f32, CPU), and its class names."""
    names = Names(**json.loads((folder / "names.json").read_text()))
    judge = Judge(len(names.concept))
    state = {key: value.float() for key, value in load_file(folder / "judge.safetensors").items()}
    judge.load_state_dict(state, strict=False)
    return judge.eval(), names


def pixels(picture: Image.Image) -> torch.Tensor:
    """A PIL picture as f32 [3, 128, 128] in [-1, 1]."""
    small = picture.convert("RGB").resize((128, 128), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 127.5 - 1


@torch.no_grad()
def style_probability(judge: Judge, names: Names, pictures: list[Image.Image], style: str) -> float:
    """Mean probability of one style over pictures: the measure of how much of it a LoRA has learnt."""
    logits = judge(torch.stack([pixels(picture) for picture in pictures]))["style"]
    return float(logits.softmax(1)[:, names.style.index(style)].mean())
