"""What is made small: the error of the velocity, by element, by sigma, by picture.

Shapes: B batch, C latent channels, H W latent rows and columns. Everything in fp32.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_SIGMA = 1e-3
"""The smallest in FLUX's table of 1000 noise levels; sigma^-2 would have no bound below it."""
LEAST_MASK = 1e-6


@dataclass(frozen=True)
class Objective:
    """L = mean over b of w_b g(sigma_b) sum(m_b e(v_b, t_b)) / sum(m_b), with mask m and picture's weight w.

    A picture counts the same however little of it its mask shows.

    Attributes:
        loss: e is (v - t)^2, or for huber 2 d (sqrt((v - t)^2 + d^2) - d): the same for small errors, linear for large
            ones (pseudo-Huber as in Song & Dhariwal 2023, arXiv 2310.14189, scaled to MSE).
        delta: d of huber.
        schedule: exponential: d ** sigma in place of d (kohya-ss/sd-scripts, `huber_schedule`).
        weighting: g; sigma_sqrt: sigma^-2, cosmap: 2 / (pi (1 - 2 sigma + 2 sigma^2)) (Esser et al. 2024, arXiv
            2403.03206, section 3.1, and diffusers, `compute_loss_weighting_for_sd3`).
    """

    loss: Literal["mse", "huber"] = "mse"
    delta: float = 0.1
    schedule: Literal["constant", "exponential"] = "constant"
    weighting: Literal["none", "sigma_sqrt", "cosmap"] = "none"

    def __call__(
        self,
        velocity_BCHW: Tensor,
        target_BCHW: Tensor,
        sigma_B: Tensor,
        mask_B1HW: Tensor | None = None,
        weight_B: Tensor | None = None,
    ) -> Tensor:
        """The loss, a scalar."""
        each_BCHW = self._error(velocity_BCHW.float(), target_BCHW, sigma_B)
        if mask_B1HW is None and weight_B is None and self.weighting == "none":
            return each_BCHW.mean()
        loss_B = by_sample(each_BCHW, mask_B1HW)
        if self.weighting != "none":
            loss_B = loss_B * self._by_sigma(sigma_B)
        return (loss_B if weight_B is None else loss_B * weight_B).mean()

    def _error(self, velocity_BCHW: Tensor, target_BCHW: Tensor, sigma_B: Tensor) -> Tensor:
        if self.loss == "mse":
            return F.mse_loss(velocity_BCHW, target_BCHW, reduction="none")
        exponent_B = sigma_B if self.schedule == "exponential" else torch.ones_like(sigma_B)
        delta_B111 = (self.delta**exponent_B).view(-1, 1, 1, 1)
        square_BCHW = (velocity_BCHW - target_BCHW) ** 2
        # The same as 2 d (sqrt(square + d^2) - d), which in fp32 would lose small errors.
        return 2 * delta_B111 * square_BCHW / (torch.sqrt(square_BCHW + delta_B111**2) + delta_B111)

    def _by_sigma(self, sigma_B: Tensor) -> Tensor:
        if self.weighting == "sigma_sqrt":
            return sigma_B.clamp(min=LEAST_SIGMA) ** -2
        return 2 / (math.pi * (1 - 2 * sigma_B + 2 * sigma_B**2))


PLAIN = Objective()
"""The mean squared error."""


def by_sample(each_BCHW: Tensor, mask_B1HW: Tensor | None) -> Tensor:
    """The mean of what the mask shows, for each sample; 0 where it shows nothing. Shape (B,)."""
    if mask_B1HW is None:
        return each_BCHW.mean(dim=(1, 2, 3))
    by_place_B1HW = each_BCHW.mean(dim=1, keepdim=True)
    shown_B = mask_B1HW.sum(dim=(1, 2, 3)).clamp(min=LEAST_MASK)
    return (by_place_B1HW * mask_B1HW).sum(dim=(1, 2, 3)) / shown_B
