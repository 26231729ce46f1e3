"""Procedural looks that no icon set has, so that the encoders and the autoencoder do not only know three styles.

The captioner calls every disguised picture 'unfamiliar'. flux-mini's transformer never sees one.
Shapes: layers are premultiplied f32 [B, 4, H, W].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

DISGUISES = ("none", "line", "gray", "hue", "silhouette")
_LUMA = (0.299, 0.587, 0.114)


def _edges(plane: torch.Tensor) -> torch.Tensor:
    """Gradient magnitude of [B, 1, H, W], thickened to about three pixels."""
    padded = F.pad(plane, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return torch.hypot(across, down)


def disguise(layer: torch.Tensor, kind: torch.Tensor, ink: torch.Tensor) -> torch.Tensor:
    """Redraw each layer as its `kind` (index of DISGUISES, i64 [B]) says; `ink` f32 [B, 3] is its drawing colour."""
    alpha, rgb = layer[:, 3:], layer[:, :3]
    luma = sum(weight * rgb[:, i : i + 1] for i, weight in enumerate(_LUMA))
    line = F.max_pool2d((3.0 * _edges(alpha) + 5.0 * _edges(luma)).clamp(0, 1), 3, 1, 1)
    ink = ink[:, :, None, None]
    looks = {
        "line": torch.cat([ink * line, line], 1),
        "gray": torch.cat([(luma * (0.5 + ink)).clamp(0, 1).minimum(alpha), alpha], 1),
        "hue": torch.cat([rgb[:, [2, 0, 1]], alpha], 1),
        "silhouette": torch.cat([ink * alpha, alpha], 1),
    }
    for name, look in looks.items():
        layer = torch.where((kind == DISGUISES.index(name))[:, None, None, None], look, layer)
    return layer


def random_kinds(count: int, share: float, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(kind, ink) for `disguise`: a `share` of the rows disguised, half of them as line drawings."""
    kind = 1 + torch.multinomial(torch.tensor([4.0, 1.5, 1.5, 1.0], device=device), count, replacement=True)
    kind = torch.where(torch.rand(count, device=device) < share, kind, 0)
    ink = torch.rand(count, 1, device=device) * 0.25 + torch.rand(count, 3, device=device) * 0.15
    return kind, ink
