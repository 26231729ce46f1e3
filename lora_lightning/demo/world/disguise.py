"""Procedural looks that no icon set has, so that the encoders and the autoencoder do not only know three styles.

The captioner calls every disguised picture 'unfamiliar'. flux-mini's transformer never sees one.
Shapes: layers are premultiplied f32 [B, 4, H, W].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

DISGUISES = ("none", "line", "gray", "hue", "silhouette", "bold", "outline", "tint", "posterised")
SHARES = (0.0, 3.0, 1.0, 1.0, 0.5, 5.0, 1.5, 2.0, 1.0)
_LUMA = (0.299, 0.587, 0.114)
MOST_SHEAR, MOST_STRETCH = 0.15, 0.2


@dataclass
class Looks:
    """How each picture is redrawn: what (index of DISGUISES) and in which ink, and how its things are bent."""

    kind: torch.Tensor  # i64 [B]
    ink: torch.Tensor  # f32 [B, 3]
    bend: torch.Tensor  # f32 [B, 3]: -1 mirrors; width over height; shear

    @classmethod
    def random(cls, count: int, share: float, device: torch.device) -> Looks:
        """A `share` of the rows disguised, and every row bent: half mirrored, a little stretched and sheared."""
        kind = torch.multinomial(torch.tensor(SHARES, device=device), count, replacement=True)
        kind = torch.where(torch.rand(count, device=device) < share, kind, 0)
        ink = torch.rand(count, 1, device=device) * 0.25 + torch.rand(count, 3, device=device) * 0.15
        mirror = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
        stretch = 1 + MOST_STRETCH * (2 * torch.rand(count, device=device) - 1)
        shear = MOST_SHEAR * (2 * torch.rand(count, device=device) - 1)
        return cls(kind, ink, torch.stack([mirror, stretch, shear], 1))

    def rows(self, index: torch.Tensor) -> Looks:
        """Those of some pictures."""
        return Looks(self.kind[index], self.ink[index], self.bend[index])


def _edges(plane: torch.Tensor) -> torch.Tensor:
    """Gradient magnitude of [B, 1, H, W], thickened to about three pixels."""
    padded = F.pad(plane, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return torch.hypot(across, down)


def disguise(layer: torch.Tensor, looks: Looks) -> torch.Tensor:
    """Redraw each layer as its kind says; the ink is its drawing colour, or turns its colours."""
    kind, ink = looks.kind, looks.ink[:, :, None, None]
    alpha, rgb = layer[:, 3:], layer[:, :3]
    luma = sum(weight * rgb[:, i : i + 1] for i, weight in enumerate(_LUMA))
    line = F.max_pool2d((3.0 * _edges(alpha) + 5.0 * _edges(luma)).clamp(0, 1), 3, 1, 1)
    bold = torch.maximum(line, torch.sigmoid(60 * (ink[:, :1] + 0.1 - luma)) * alpha)  # dark parts are filled
    mixing = torch.stack([torch.roll(looks.ink, turn, 1) for turn in range(3)], 1) * 2
    tint = torch.einsum("bij,bjhw->bihw", mixing / mixing.sum(2, keepdim=True), rgb)
    made = {
        "line": torch.cat([ink * line, line], 1),
        "gray": torch.cat([(luma * (0.5 + ink)).clamp(0, 1).minimum(alpha), alpha], 1),
        "hue": torch.cat([rgb[:, [2, 0, 1]], alpha], 1),
        "silhouette": torch.cat([ink * alpha, alpha], 1),
        "bold": torch.cat([0.3 * ink * bold, bold], 1),
        "outline": torch.cat([rgb * (1 - line) + ink * line, torch.maximum(alpha, line)], 1),
        "tint": torch.cat([tint, alpha], 1),
        "posterised": torch.cat([((rgb * 3).round() / 3).minimum(alpha), alpha], 1),
    }
    for name, look in made.items():
        layer = torch.where((kind == DISGUISES.index(name))[:, None, None, None], look, layer)
    return layer
