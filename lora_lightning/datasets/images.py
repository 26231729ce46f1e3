"""Reading a picture the one right way: upright, opaque, 8-bit sRGB. Nothing that is changed here is ever stored.

Limits: 64 million pixels; JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF and HEIC, told apart by
content and never by name. The one thing that a file's name tells is a background chosen at its import:
`000001.3fa9c2d1.on-808080.png` is laid on gray.
"""

import re
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pi_heif
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError, features

from lora_lightning.datasets.colour import WHITE, Unreadable, to_rgb
from lora_lightning.errors import DatasetError
from lora_lightning.runs.files import write_atomic

pi_heif.register_heif_opener()
SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tiff", "GIF": "gif", "HEIF": "heic"}
SUFFIXES |= {"AVIF": "avif"} if features.check("avif") else {}
_BACKGROUND = re.compile(r"\.on-([0-9a-f]{6})\.[a-z]+$")
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

# Pillow warns from 89 million pixels and decodes on; its documentation advises to make that an error.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Decoded:
    """A picture ready for use.

    Attributes:
        image: 8-bit RGB.
        format: a key of `SUFFIXES`.
        changes: in which ways the pixels differ from what the bytes hold.
    """

    image: Image.Image
    format: str
    changes: tuple[str, ...]


def open_rgb(path: Path) -> Image.Image:
    """The picture as 8-bit sRGB: upright, alpha on its background, 16-bit scaled, first frame.

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
        return decode(path, at_least, background_of(path.name))
    except FileNotFoundError:
        raise DatasetError(f"picture {path} is gone", "Import it again.") from None
    except Unreadable as error:
        raise DatasetError(f"picture {path} cannot be read: {error}", "Replace it or take it out.") from None


def stored_name(id: int, sha256: str, decoded_format: str, on: str = WHITE) -> str:
    """The name of a picture's file inside images/, with the colour behind what is transparent unless it is white."""
    tag = "" if on == WHITE else f".on-{on[1:]}"
    return f"{id:06d}.{sha256[:8]}{tag}.{SUFFIXES[decoded_format]}"


def background_of(file: str) -> str:
    """The colour that `stored_name` put into the name of a file."""
    found = _BACKGROUND.search(file)
    return f"#{found[1]}" if found else WHITE


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


def decode(path: Path, at_least: int | None = None, on: str = WHITE) -> Decoded:
    """Decode a picture completely.

    Args:
        path: of the file; its name plays no part.
        at_least: pixels that a side needs; a JPEG is then decoded smaller, which is faster.
        on: the colour behind what is transparent, `#rrggbb`.

    Raises:
        Unreadable: it is no picture, damaged, cut off or too large.
    """
    try:
        with Image.open(path, formats=list(SUFFIXES)) as image:
            return _decode(image, at_least, on)
    except (Unreadable, FileNotFoundError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Unreadable(f"it has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise Unreadable("it is damaged, or not of a format that is read") from None
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


def _decode(image: ImageFile.ImageFile, at_least: int | None, on: str) -> Decoded:
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
        rgb = to_rgb(image, changes, on)
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
