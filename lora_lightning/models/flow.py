"""Flow matching as FLUX trains it: short pure functions, each the equation of its docstring.

Shapes: B batch, C latent channels, H W latent rows and columns, L tokens, D features of a token.
Rectified flow: Liu et al. 2022 (arXiv 2209.03003). How sigma is drawn: train/timesteps.py.
"""

import torch
from torch import Tensor


def interpolate(x0_BCHW: Tensor, noise_BCHW: Tensor, sigma_B: Tensor) -> Tensor:
    """The point x_sigma = (1 - sigma) x_0 + sigma epsilon."""
    sigma_B111 = sigma_B.view(-1, 1, 1, 1)
    return (1 - sigma_B111) * x0_BCHW + sigma_B111 * noise_BCHW


def target(x0_BCHW: Tensor, noise_BCHW: Tensor) -> Tensor:
    """The velocity d x_sigma / d sigma = epsilon - x_0."""
    return noise_BCHW - x0_BCHW


def pack(x_BCHW: Tensor) -> Tensor:
    """Each 2 x 2 patch becomes a token: `b c (h 2) (w 2) -> b (h w) (c 2 2)`."""
    b, c, h, w = x_BCHW.shape
    patches = x_BCHW.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(b, (h // 2) * (w // 2), c * 4)


def unpack(z_BLD: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack` for latents of `height` x `width`."""
    b, _, d = z_BLD.shape
    patches = z_BLD.view(b, height // 2, width // 2, d // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(b, d // 4, height, width)


def image_ids(height: int, width: int) -> Tensor:
    """Positions (0, row, column) of the tokens of latents of `height` x `width`. Shape (L, 3), fp32."""
    rows, columns = torch.meshgrid(torch.arange(height // 2), torch.arange(width // 2), indexing="ij")
    return torch.stack((torch.zeros_like(rows), rows, columns), dim=-1).reshape(-1, 3).float()
