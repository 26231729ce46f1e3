"""Noise levels in three bands, because their losses differ in scale and in what they teach."""

BANDS = {"detail": (0.0, 0.4), "structure": (0.4, 0.8), "layout": (0.8, 1.01)}
"""Band -> sigma from, sigma below."""


def band_of(sigma: float) -> str:
    """The band that a noise level lies in."""
    return next(name for name, (low, high) in BANDS.items() if low <= sigma < high)
