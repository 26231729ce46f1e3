"""Stage `refine`: sharpen the autoencoder's decoder while its encoder, and so flux-mini's latent space, stays fixed."""

from __future__ import annotations

from . import vae
from .common import Settings


def train(settings: Settings) -> None:
    """Overwrite BUILD/vae.safetensors with a sharper decoder."""
    vae.train(settings, decoder_only=True)
