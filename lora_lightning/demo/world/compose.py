"""Paint scenes on the training device: atlas cells warped onto procedural backgrounds.

Shapes: B scenes, P = 96 atlas pixels, H = W = 128. Pictures are f32 [B, 3, H, W] in [-1, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .atlas import Atlas
from .disguise import Looks, disguise
from .scene import CANVAS, Scene

SOFT_BELOW = 80.0  # things smaller than this many pixels are read from the low-passed copy of the atlas


@dataclass
class Batch:
    """Scenes as tensors: `things` f32 [B, 2, 5] (drawing, x, y, size, tilt; size 0 = absent), rest by name."""

    style: torch.Tensor  # i64 [B]
    things: torch.Tensor  # f32 [B, 2, 5]
    place: torch.Tensor  # i64 [B]
    background: torch.Tensor  # i64 [B]
    colour: torch.Tensor  # i64 [B]
    second_colour: torch.Tensor  # i64 [B]
    shades: torch.Tensor  # f32 [B, 2, 3], 0..1

    @classmethod
    def of(cls, scenes: list[Scene]) -> Batch:
        """Collate scenes (CPU)."""
        things = np.zeros((len(scenes), 2, 5), np.float32)
        for row, scene in enumerate(scenes):
            for slot, thing in enumerate(scene.things):
                things[row, slot] = (thing.drawing, thing.x, thing.y, thing.size, thing.tilt)
        numbers = np.array([(s.style, s.place, s.background, s.colour, s.second_colour) for s in scenes], np.int64)
        style, place, background, colour, second = torch.from_numpy(numbers).unbind(1)
        shades = torch.from_numpy(np.array([s.shades for s in scenes], np.float32) / 255)
        return cls(style, torch.from_numpy(things), place, background, colour, second, shades)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return Batch(**{name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()})

    @property
    def drawing(self) -> torch.Tensor:
        """Atlas column of the first thing, i64 [B]."""
        return self.things[:, 0, 0].long()


class Painter:
    """Holds the atlas on the device, premultiplied, in a sharp and a low-passed copy."""

    def __init__(self, atlas: Atlas, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.kept = torch.float16 if self.device.type == "cuda" else torch.float32
        images = torch.from_numpy(atlas.images)
        styles, drawings, size = images.shape[:3]
        self.drawings = drawings
        self.cells = torch.empty(2, styles * drawings, 4, size, size, dtype=self.kept, device=self.device)
        for style in range(styles):
            rgba = images[style].to(self.device).permute(0, 3, 1, 2).float() / 255
            rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
            small = F.interpolate(rgba, scale_factor=0.66, mode="bilinear", antialias=True, align_corners=False)
            soft = F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
            rows = slice(style * drawings, (style + 1) * drawings)
            self.cells[0, rows], self.cells[1, rows] = rgba.to(self.kept), soft.to(self.kept)
        axis = torch.arange(CANVAS, device=self.device, dtype=torch.float32) + 0.5
        self.y, self.x = torch.meshgrid(axis, axis, indexing="ij")

    def paint(self, batch: Batch, looks: Looks | None = None) -> torch.Tensor:
        """f32 [B, 3, H, W] in [-1, 1]; `batch` and `looks` on the painter's device."""
        picture = self._background(batch)
        for slot in range(2):
            rows = torch.nonzero(batch.things[:, slot, 3] > 0)[:, 0]
            if len(rows):
                its = None if looks is None else looks.rows(rows)
                cell = self._thing(batch.style[rows], batch.things[rows, slot], its)
                if its is not None:
                    cell = disguise(cell, its)
                picture[rows] = picture[rows] * (1 - cell[:, 3:]) + cell[:, :3]
        return picture * 2 - 1

    def _thing(self, style: torch.Tensor, thing: torch.Tensor, looks: Looks | None) -> torch.Tensor:
        drawing, x, y, size, tilt = thing.unbind(1)
        index = style * self.drawings + drawing.long()
        cells = self.cells[(size < SOFT_BELOW).long(), index]
        angle, half = tilt * (math.pi / 180), (size / 2)[:, None, None]
        across, down = (self.x - x[:, None, None]) / half, (self.y - y[:, None, None]) / half
        cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
        across, down = across * cos + down * sin, down * cos - across * sin
        if looks is not None:
            mirror, stretch, shear = looks.bend[:, :, None, None].unbind(1)
            across, down = mirror * (across + shear * down) / stretch, down * stretch
        grid = torch.stack([across, down], -1).to(self.kept)
        return F.grid_sample(cells, grid, mode="bilinear", padding_mode="zeros", align_corners=False).float()

    def _background(self, batch: Batch) -> torch.Tensor:
        """Mix the two shades by a pattern in [0, 1]: plain, gradient, checkered, striped, dotted, two-tone."""
        x, y = self.x, self.y
        dots = torch.sigmoid(4.5 - torch.hypot((x % 16) - 8, (y % 16) - 8))
        patterns = torch.stack(
            [
                torch.zeros_like(x),
                y / CANVAS,
                ((x // 16 + y // 16) % 2),
                ((x // 16) % 2),
                dots,
                torch.sigmoid(y - CANVAS * 0.625),
            ]
        )
        mix = patterns[batch.background][:, None]
        first, second = (batch.shades[:, i, :, None, None] for i in range(2))
        return first * (1 - mix) + second * mix
