"""Flow matching as FLUX trains it: short pure functions, each the equation of its docstring.

Shapes: B batch, C latent channels, H W latent rows and columns, L tokens, D features of a token.
Rectified flow: Liu et al. 2022 (arXiv 2209.03003); logit-normal sigma and the shift: Esser et al. 2024
(arXiv 2403.03206), sections 3.1 and 5.3.2; FLUX's mu: black-forest-labs/flux, src/flux/sampling.py.
"""

import math

import torch
from torch import Tensor

BASE_TOKENS, MAX_TOKENS = 256, 4096
BASE_MU, MAX_MU = 0.5, 1.15


def logit_normal(count: int, generator: torch.Generator) -> Tensor:
    """Draw sigma = sigmoid(z), z ~ N(0, 1): most of the training between the ends. Shape (B,), fp32."""
    return torch.sigmoid(torch.randn(count, generator=generator))


def uniform(count: int, generator: torch.Generator) -> Tensor:
    """Draw sigma ~ U(0, 1). Shape (B,), fp32."""
    return torch.rand(count, generator=generator)


SAMPLERS = {"logit_normal": logit_normal, "uniform": uniform}
"""How sigma is drawn, by the recipe's name for it."""


def resolution_mu(tokens: int) -> float:
    """mu(L) = m L + b, the line through (256, 0.5) and (4096, 1.15), L = (height / 16) (width / 16)."""
    m = (MAX_MU - BASE_MU) / (MAX_TOKENS - BASE_TOKENS)
    return BASE_MU + m * (tokens - BASE_TOKENS)


def shift_factor(shift: str | float, tokens: int) -> float:
    """The k of `shift_sigma`: 1 for `none`, exp(mu(L)) for `resolution`, or the number itself."""
    if shift == "none":
        return 1.0
    return math.exp(resolution_mu(tokens)) if shift == "resolution" else float(shift)


def shift_sigma(sigma_B: Tensor, k: float) -> Tensor:
    """Move sigma to k sigma / (1 + (k - 1) sigma): towards noise for k > 1."""
    return k * sigma_B / (1 + (k - 1) * sigma_B)


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
