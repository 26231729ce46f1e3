"""Reading a picture the one right way: upright, opaque, 8-bit sRGB. Nothing that is changed here is ever stored.

Limits: 64 million pixels; JPEG, PNG, WebP, BMP, TIFF and GIF, told apart by content and never by name.
"""

import io
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from lora_lightning.datasets.names import clean
from lora_lightning.errors import DatasetError
from lora_lightning.runs.files import write_atomic

SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tiff", "GIF": "gif"}
MAX_PIXELS = 64_000_000
MAX_THUMBNAIL_SIDE = 2048
LARGE_PIXELS = 25_000_000
_ONE_LARGE = threading.Lock()  # one picture of the largest size needs nearly 1 GiB while its alpha is resolved
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SRGB = ImageCms.createProfile("sRGB")
_PROFILE_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_PROFILE_FITS = {"RGB": ("1", "L", "RGB"), "L": ("1", "L"), "CMYK": ("CMYK",)}

# Pillow warns from 89 million pixels and decodes on; its documentation advises to make that an error.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


class Unreadable(ValueError):
    """Why a file cannot be used as a picture, in words for a person."""


@dataclass(frozen=True)
class Decoded:
    """A picture ready for use.

    Attributes:
        image: 8-bit RGB.
        format: "JPEG", "PNG", "WEBP", "BMP", "TIFF" or "GIF".
        changes: in which ways the pixels differ from what the bytes hold.
    """

    image: Image.Image
    format: str
    changes: tuple[str, ...]


def open_rgb(path: Path) -> Image.Image:
    """The picture as 8-bit sRGB: upright, alpha on white, 16-bit scaled, first frame.

    Raises:
        DatasetError: it cannot be read; the message says why.
    """
    return read(path).image


def read(path: Path, at_least: int | None = None) -> Decoded:
    """Like `decode`, for a picture of a dataset.

    Raises:
        DatasetError: it is gone or cannot be read; the message names it and says why.
    """
    try:
        return decode(path, at_least)
    except FileNotFoundError:
        raise DatasetError(f"picture {path} is gone", "Import it again.") from None
    except Unreadable as error:
        raise DatasetError(f"picture {path} cannot be read: {error}", "Replace it or take it out.") from None


def thumbnail(dataset_folder: Path, file: str, side: int = 384) -> Path:
    """A cached WebP whose longer side is at most `side` pixels, made on first use.

    Args:
        dataset_folder: of the dataset.
        file: of the picture, inside images/; anything that is not a plain file name is refused.
        side: pixels, 16 to 2048.

    Raises:
        DatasetError: there is no such picture, or it cannot be read.
    """
    original = dataset_folder / "images" / file
    if Path(file).name != file or not original.is_file():
        raise DatasetError(f"there is no picture {file!r} in {dataset_folder.name!r}", "Reload the list of pictures.")
    side = min(max(side, 16), MAX_THUMBNAIL_SIDE)
    cached = dataset_folder / "thumbs" / f"{file}.{side}.webp"
    if cached.is_file():
        return cached
    image = read(original, at_least=side).image
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return write_atomic(cached, lambda target: image.save(target, "WEBP", quality=80))


def decode(path: Path, at_least: int | None = None) -> Decoded:
    """Decode a picture completely.

    Args:
        path: of the file; its name plays no part.
        at_least: pixels that a side needs; a JPEG is then decoded smaller, which is faster.

    Raises:
        Unreadable: it is no picture, damaged, cut off or too large.
    """
    try:
        with Image.open(path, formats=list(SUFFIXES)) as image:
            return _decode(image, at_least)
    except (Unreadable, FileNotFoundError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Unreadable(f"it has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise Unreadable("it is damaged, or not JPEG, PNG, WebP, BMP, TIFF or GIF") from None
    except Exception as error:  # a decoder that meets hostile bytes may raise anything
        raise Unreadable(f"it is damaged ({str(error).strip() or type(error).__name__})") from error


def verify_png(path: Path) -> None:
    """Compare the checksums of a PNG's pixels, which decoding does not look at.

    Raises:
        Unreadable: a byte of it was changed.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.verify()
    except Exception as error:
        raise Unreadable(f"it is damaged ({error})") from error


def _decode(image: ImageFile.ImageFile, at_least: int | None) -> Decoded:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Unreadable(f"{width} x {height} is more than {MAX_PIXELS:,} pixels")
    format = "JPEG" if image.format == "MPO" else str(image.format)  # MPO: a phone's JPEG with extras behind it
    frames = 1 if format == "JPEG" else int(getattr(image, "n_frames", 1))
    changes = ["16 bits a channel scaled to 8"] if _has_16_bits(image, format) else []
    if frames > 1:
        changes.append(f"first of {frames} {'pages' if format == 'TIFF' else 'frames'}")
    orientation = _orientation(image)  # loads a PNG, which forgets its raw mode
    if orientation in _UPRIGHT:
        changes.append(f"turned upright (EXIF orientation {orientation})")
    if at_least is not None and format == "JPEG":
        image.draft(None, (at_least, at_least))
    with _ONE_LARGE if width * height > LARGE_PIXELS else nullcontext():
        image.load()
        rgb = _to_rgb(image, changes)
        if orientation in _UPRIGHT and format != "TIFF":  # Pillow has turned a TIFF already
            rgb = rgb.transpose(_UPRIGHT[orientation])
    rgb.info.clear()  # Pillow would save the original's colour profile with pixels that are sRGB now
    return Decoded(rgb, format, tuple(changes))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF in a picture that is otherwise fine
        return 1


def _has_16_bits(image: ImageFile.ImageFile, format: str) -> bool:
    """Whether the file keeps 16 bits a channel: Pillow reads colour as its high bytes, and gray as `I;16`."""
    return format in ("PNG", "TIFF") and any(";16" in str(tile.args) for tile in image.tile)


def _to_rgb(image: Image.Image, changes: list[str]) -> Image.Image:
    """8-bit sRGB on white; says in `changes` what was done."""
    profile = image.info.get("icc_profile")
    alpha, colour = _split(image)
    if profile:
        colour = _to_srgb(colour, profile, changes)
    if colour.mode == "CMYK":
        changes.append("CMYK converted to RGB")
    if alpha is None or alpha.getextrema() == (255, 255):
        return colour.convert("RGB")
    changes.append("transparency laid on white")
    white = Image.new("RGB", colour.size, "white")
    white.paste(colour, mask=alpha)  # in RGB, whatever the mode of the colour
    return white


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
