"""What of a picture is learned: its transparency, or a picture of the same name in the dataset's folder `masks`.

White is learned, black is not. Shapes: H W rows and columns of latents.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lora_lightning.datasets.crops import View
from lora_lightning.datasets.images import SUFFIXES, open_rgb
from lora_lightning.datasets.store import Picture
from lora_lightning.train import beside


def find(pictures: Sequence[Picture], folder: Path, kind: str) -> dict[str, str]:
    """The mask of each picture that has one: picture's file -> mask's path, as seen from the dataset's folder.

    Args:
        pictures: of the dataset.
        folder: of the dataset.
        kind: "none", "alpha" (a picture is its own mask), or "folder" (`beside.find`).

    Raises:
        DatasetError: a mask has another shape than its picture.
    """
    if kind == "folder":
        return beside.find(pictures, folder, beside.MASKS)
    if kind == "none":
        return {}
    images = ((picture.file, f"images/{picture.file}") for picture in pictures)
    return {file: path for file, path in images if _opened(folder / path, alpha=True).getextrema() != (255, 255)}


def latent_mask(path: Path, view: View, height: int, width: int, *, alpha: bool) -> Tensor:
    """A mask as its picture's latents see it: the mean over what each of them covers. Shape (1, 1, H, W), 0 to 1.

    Args:
        path: of the mask, or of the picture itself for its transparency.
        view: of the picture.
        height: H.
        width: W.
        alpha: whether the transparency is the mask.
    """
    mask, crop = _opened(path, alpha=alpha), view.crop
    across, down = mask.width / crop.resized_width, mask.height / crop.resized_height
    box = (crop.left * across, crop.top * down, crop.right * across, crop.bottom * down)
    small = mask.convert("F").resize((width, height), Image.Resampling.BOX, box=box)
    shown = ImageOps.mirror(small) if view.flipped else small
    return torch.from_numpy(np.array(shown, dtype=np.float32))[None, None] / 255


def _opened(path: Path, *, alpha: bool) -> Image.Image:
    """One channel, upright; opaque where there is no transparency."""
    if not alpha:
        return open_rgb(path).convert("L")
    open_rgb(path)  # refuses whatever is no picture, with a message
    with Image.open(path, formats=list(SUFFIXES)) as image:
        upright = ImageOps.exif_transpose(image)
        return upright.convert("RGBA").getchannel("A")
