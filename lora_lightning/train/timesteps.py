"""How the noise level sigma is drawn, and with which density; torch-free, so the Train page can show it.

    sigma of pure noise is 1, of the picture 0

Sources: logit-normal and mode, Esser et al. 2024 (arXiv 2403.03206), equations 19 and 20; the shift, ibid. section
5.3.2; FLUX's mu, black-forest-labs/flux, src/flux/sampling.py; style, Choi et al. 2024 (arXiv 2411.14793).
"""

import math
from dataclasses import dataclass
from typing import Literal

Sampler = Literal["logit_normal", "sigmoid", "uniform", "mode", "style"]
Shift = Literal["none", "resolution"] | float

BASE_TOKENS, MAX_TOKENS = 256, 4096
BASE_MU, MAX_MU = 0.5, 1.15
STYLE_MEAN, STYLE_STD = 3.0, 1.0
"""Of logit(sigma). The paper's log-SNR ~ N(-6, 2) is -2 logit(sigma): much noise is a *positive* mean here."""
BISECTIONS = 60


def resolution_mu(tokens: int) -> float:
    """mu(L) = m L + b, the line through (256, 0.5) and (4096, 1.15), L = (height / 16) (width / 16)."""
    m = (MAX_MU - BASE_MU) / (MAX_TOKENS - BASE_TOKENS)
    return BASE_MU + m * (tokens - BASE_TOKENS)


def shift_sigma(sigma: float, k: float) -> float:
    """Move sigma to k sigma / (1 + (k - 1) sigma): towards noise for k > 1."""
    return k * sigma / (1 + (k - 1) * sigma)


@dataclass(frozen=True)
class Timesteps:
    """A distribution of sigma for each size of picture.

    Attributes:
        sampler: logit_normal: sigmoid(mean + std z), z ~ N(0, 1). sigmoid: the same about 0. uniform. mode: of u ~
            U(0, 1), 1 - u - scale (cos^2(pi u / 2) - 1 + u). style: logit-normal with mean 3 at 1024 x 1024.
        mean: of logit(sigma).
        std: of logit(sigma).
        mode_scale: -1 to 1.75; above 0 the middle comes more often.
        shift: "none", a factor k of `shift_sigma`, or "resolution": k = exp(mu(tokens)) as FLUX.1-dev samples; for
            style, whose mean holds the shift of 1024 x 1024 already, k = sqrt(tokens / 4096).
    """

    sampler: Sampler = "logit_normal"
    mean: float = 0.0
    std: float = 1.0
    mode_scale: float = 1.29
    shift: Shift = "resolution"

    @property
    def from_normal(self) -> bool:
        """Whether `sigma` wants a draw of N(0, 1), not of U(0, 1)."""
        return self.sampler in ("logit_normal", "sigmoid", "style")

    def factor(self, tokens: int) -> float:
        """The k of `shift_sigma` for pictures of so many tokens."""
        if self.shift == "none":
            return 1.0
        if self.shift != "resolution":
            return float(self.shift)
        return math.sqrt(tokens / MAX_TOKENS) if self.sampler == "style" else math.exp(resolution_mu(tokens))

    def sigma(self, drawn: float, tokens: int) -> float:
        """The sigma that a draw becomes.

        Args:
            drawn: from N(0, 1) or U(0, 1); see `from_normal`.
            tokens: of the picture.
        """
        if self.from_normal:
            mean, std = self._logit
            sigma = 1 / (1 + math.exp(-(mean + std * drawn)))
        else:
            sigma = _mode(drawn, self.mode_scale) if self.sampler == "mode" else drawn
        return shift_sigma(sigma, self.factor(tokens))

    def density(self, sigma: float, tokens: int) -> float:
        """The probability density at a sigma between 0 and 1, both excluded, for pictures of so many tokens."""
        k = self.factor(tokens)
        before = sigma / (k - (k - 1) * sigma)  # the sigma that is shifted to this one
        return self._unshifted(before) * k / (k - (k - 1) * sigma) ** 2

    @property
    def _logit(self) -> tuple[float, float]:
        if self.sampler == "style":
            return STYLE_MEAN, STYLE_STD
        return (0.0 if self.sampler == "sigmoid" else self.mean), self.std

    def _unshifted(self, sigma: float) -> float:
        """The density before the shift."""
        if self.from_normal:
            mean, std = self._logit
            z = (math.log(sigma / (1 - sigma)) - mean) / std
            return math.exp(-z * z / 2) / (std * math.sqrt(2 * math.pi) * sigma * (1 - sigma))
        return _mode_density(sigma, self.mode_scale) if self.sampler == "mode" else 1.0


def _mode(u: float, scale: float) -> float:
    return 1 - u - scale * (math.cos(math.pi / 2 * u) ** 2 - 1 + u)


def _mode_density(sigma: float, scale: float) -> float:
    """1 / |f'(u)| where f(u) = sigma; f, which is `_mode`, falls from 1 to 0."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _mode(middle, scale) > sigma else (low, middle)
    return 1 / (1 + scale * (1 - math.pi / 2 * math.sin(math.pi * low)))
