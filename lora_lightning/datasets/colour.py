"""Colour the one right way: 8-bit sRGB without transparency, whatever a file holds."""

import io

import numpy as np
from PIL import Image, ImageCms, ImageColor

from lora_lightning.datasets.names import clean
from lora_lightning.errors import InputError

WHITE = "#ffffff"
TRANSPARENCY = "transparency laid on"
_SRGB = ImageCms.createProfile("sRGB")
_PROFILE_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_PROFILE_FITS = {"RGB": ("1", "L", "RGB"), "L": ("1", "L"), "CMYK": ("CMYK",)}


class Unreadable(ValueError):
    """Why a file cannot be used as a picture, in words for a person."""


def background(name: str) -> str:
    """A colour as `#rrggbb`, from that or from a name such as `gray`.

    Raises:
        InputError: it is no colour.
    """
    try:
        red, green, blue, *_ = ImageColor.getrgb(name)
    except ValueError:
        raise InputError(f"{name!r} is no colour", "Write one such as gray or #808080.") from None
    return f"#{red:02x}{green:02x}{blue:02x}"


def to_rgb(image: Image.Image, changes: list[str], on: str = WHITE) -> Image.Image:
    """A loaded picture as 8-bit sRGB; says in `changes` what was done.

    Args:
        image: of any mode.
        changes: gets a line for each change.
        on: the colour behind what is transparent, `#rrggbb`.

    Raises:
        Unreadable: it holds numbers that are no colours.
    """
    profile = image.info.get("icc_profile")
    alpha, colour = _split(image)
    if profile:
        colour = _to_srgb(colour, profile, changes)
    if colour.mode == "CMYK":
        changes.append("CMYK converted to RGB")
    if alpha is None or alpha.getextrema() == (255, 255):
        return colour.convert("RGB")
    changes.append(f"{TRANSPARENCY} {'white' if on == WHITE else on}")
    opaque = Image.new("RGB", colour.size, on)
    opaque.paste(colour, mask=alpha)  # in RGB, whatever the mode of the colour
    return opaque


def _split(image: Image.Image) -> tuple[Image.Image | None, Image.Image]:
    """Alpha (L, or None) and colour (8 bits a channel) of a loaded picture."""
    if image.mode.startswith("I;16"):
        return _split_gray16(image)
    if image.mode == "F":
        return None, _from_float(image)
    if image.mode == "I":
        raise Unreadable("32-bit whole numbers have no agreed white; save it with 8 or 16 bits")
    if not image.has_transparency_data:
        return None, image.convert("RGB") if image.mode == "P" else image
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in key)  # a 16-bit key for what is now 8 bits
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    return rgba.getchannel("A"), rgba.convert("RGB")


def _split_gray16(image: Image.Image) -> tuple[Image.Image | None, Image.Image]:
    """Scale 16-bit gray by 255 / 65535; Pillow's own conversion would clip nearly all of it to white."""
    values_HW = np.asarray(image).astype(np.uint32)
    gray_HW = ((values_HW * 255 + 32767) // 65535).astype(np.uint8)
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0:  # PhotometricInterpretation: 0 is white
        gray_HW = 255 - gray_HW
    key = image.info.get("transparency")
    alpha = None if key is None else Image.fromarray(np.where(values_HW == key, 0, 255).astype(np.uint8))
    return alpha, Image.fromarray(gray_HW)


def _from_float(image: Image.Image) -> Image.Image:
    values_HW = np.asarray(image)
    if not (np.isfinite(values_HW).all() and values_HW.min() >= 0 and values_HW.max() <= 1):
        raise Unreadable("its floating-point values are not all between 0 and 1")
    return Image.fromarray((values_HW * 255 + 0.5).astype(np.uint8))


def _to_srgb(image: Image.Image, profile_bytes: bytes, changes: list[str]) -> Image.Image:
    """Apply an embedded ICC profile, unless it says sRGB or is meant for another kind of colour."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_bytes))
        name = ImageCms.getProfileDescription(profile).strip()
        mode = _PROFILE_MODES.get(profile.profile.xcolor_space, "")
        if image.mode not in _PROFILE_FITS.get(mode, ()) or ("sRGB" in name and "linear" not in name.lower()):
            return image
        converted = ImageCms.profileToProfile(image.convert(mode), profile, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        changes.append("its colour profile is damaged and was left out")
        return image
    changes.append(f"colours converted to sRGB from {clean(name) or 'its profile'}")
    return converted or image
