"""A picture as it is trained on and edited: resized, cut and turned."""

from pathlib import Path

from PIL import Image, ImageOps

from lora_lightning.datasets.crops import View
from lora_lightning.datasets.images import open_rgb


def cut(source: Path, view: View) -> Image.Image:
    """What a view shows of a picture, in RGB."""
    crop = view.crop
    resized = open_rgb(source).resize((crop.resized_width, crop.resized_height), Image.Resampling.LANCZOS)
    shown = resized.crop((crop.left, crop.top, crop.right, crop.bottom))
    return ImageOps.mirror(shown) if view.flipped else shown
