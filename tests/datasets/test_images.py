"""Pixels read from real photographs in every format and colour mode, against references computed with numpy."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lora_lightning.datasets.colour import Unreadable
from lora_lightning.datasets.images import decode, open_rgb, thumbnail
from lora_lightning.errors import DatasetError

UPRIGHT = {  # EXIF 2.32, tag 0x0112: how the stored array becomes the upright one
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.fixture(scope="module")
def photo_HWC(photos):
    """A real colour photograph, 451 x 300, as uint8."""
    with Image.open(photos[3]) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def reads(tmp_path):
    """Decode an encoded picture: its pixels and what was changed."""

    def read(data):
        path = tmp_path / "picture.bin"  # the name tells nothing
        path.write_bytes(data)
        decoded = decode(path)
        assert decoded.image.mode == "RGB"
        return np.asarray(decoded.image).astype(int), decoded.changes

    return read


def encode(image, format, **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png16(values, colour_type, key=()):
    """A 16-bit PNG written by hand: Pillow cannot write colour with 16 bits. colour_type: 0 L, 2 RGB, 4 LA, 6 RGBA."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    values = values.reshape(len(values), -1)
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    header = struct.pack(">IIBBBBB", values.shape[1] // channels, values.shape[0], 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    transparent = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b""
    body = chunk(b"IHDR", header) + transparent + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("format", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95}, 3),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 90}, 5),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("GIF", {}, 12),
        ("AVIF", {"quality": 90}, 6),
    ],
)
def test_each_format_gives_the_photograph(reads, photo_HWC, format, options, tolerance):
    pixels, changes = reads(encode(photo_HWC, format, **options))
    assert pixels.shape == photo_HWC.shape
    assert np.abs(pixels - photo_HWC).mean() <= tolerance
    assert changes == ()


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_exif_orientation_is_applied(reads, photo_HWC, orientation, format, options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, changes = reads(encode(photo_HWC, format, exif=exif, **options))
    assert np.array_equal(pixels, UPRIGHT[orientation](photo_HWC))
    assert len(changes) == (orientation != 1)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_of_an_avif(reads, photo_HWC, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, _ = reads(encode(photo_HWC, "AVIF", quality=95, exif=exif))
    assert np.abs(pixels - UPRIGHT[orientation](photo_HWC)).mean() < 6


def test_a_phones_heic(photos):
    decoded = decode(Path(__file__).parent / "data" / "phone.heic")
    with Image.open(photos[0]) as astronaut:
        expected = np.asarray(astronaut.convert("RGB").resize((64, 48))).astype(int)
    assert (decoded.format, decoded.changes) == ("HEIF", ())
    assert np.abs(np.asarray(decoded.image) - expected).mean() < 8


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_of_a_jpeg(reads, photo_HWC, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, _ = reads(encode(photo_HWC, "JPEG", quality=95, exif=exif))
    reference = UPRIGHT[orientation](photo_HWC)
    assert pixels.shape == reference.shape
    assert np.abs(pixels - reference).mean() < 3


def exif_block(kind, value):
    """EXIF with an orientation of any TIFF kind: 2 text, 3 short, 5 ratio."""
    entry = struct.pack(">HHI4s", 0x0112, kind, 1, value)
    return b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns and goes on, as we do
@pytest.mark.parametrize(
    "exif",
    [
        exif_block(3, b"\0\0\0\0"),
        exif_block(3, b"\0\x09\0\0"),
        exif_block(2, b"six\0"),
        exif_block(5, b"\xff\xff\xff\xff"),
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken",
    ],
)
def test_a_nonsense_orientation_is_ignored(reads, photo_HWC, exif):
    pixels, changes = reads(encode(photo_HWC, "JPEG", exif=exif))
    assert pixels.shape == photo_HWC.shape
    assert changes == ()


@pytest.mark.parametrize("kind", ["png", "tiff", "tiff big-endian", "tiff white is zero"])
def test_16_bit_gray_is_scaled_and_not_clipped(reads, photo_HWC, kind):
    gray_HW = photo_HWC[:, :, 1].astype(np.uint16) * 257 - photo_HWC[:, :, 0] // 2
    gray_HW[0, :4] = (0, 0x0A00, 30000, 65535)
    reference = np.round(gray_HW.astype(float) * 255 / 65535)
    if kind == "png":
        data = png16(gray_HW, 0)
    else:
        inverted = kind.endswith("zero")
        buffer = io.BytesIO()
        tifffile.imwrite(
            buffer,
            65535 - gray_HW if inverted else gray_HW,
            photometric="miniswhite" if inverted else "minisblack",
            byteorder=">" if "big" in kind else "<",
        )
        data = buffer.getvalue()
    pixels, changes = reads(data)
    assert np.array_equal(pixels, np.repeat(reference[:, :, None], 3, axis=2))
    assert changes == ("16 bits a channel scaled to 8",)


@pytest.mark.parametrize("container", ["png", "tiff", "tiff big-endian"])
@pytest.mark.parametrize("alpha", [False, True])
def test_16_bit_colour(reads, photo_HWC, container, alpha):
    colour_HWC = photo_HWC.astype(np.uint16) * 257
    alpha_HW = np.linspace(0, 65535, photo_HWC.shape[1]).astype(np.uint16) * np.ones((len(photo_HWC), 1), np.uint16)
    values = np.dstack([colour_HWC, alpha_HW]) if alpha else colour_HWC
    if container == "png":
        data = png16(values, 6 if alpha else 2)
    else:
        buffer = io.BytesIO()
        extra = {"extrasamples": ["unassalpha"]} if alpha else {}
        tifffile.imwrite(buffer, values, photometric="rgb", byteorder=">" if "big" in container else "<", **extra)
        data = buffer.getvalue()
    pixels, changes = reads(data)
    opacity = (alpha_HW / 65535.0)[:, :, None] if alpha else 1.0
    reference = photo_HWC * opacity + 255 * (1 - opacity)
    assert np.abs(pixels - reference).max() <= 2
    assert changes[0] == "16 bits a channel scaled to 8"
    assert ("transparency laid on white" in changes) == alpha


def test_16_bit_gray_with_alpha(reads, photo_HWC):
    gray_HW = photo_HWC[:, :, 1].astype(np.uint16) * 257
    alpha_HW = photo_HWC[:, :, 0].astype(np.uint16) * 257
    pixels, changes = reads(png16(np.dstack([gray_HW, alpha_HW]), 4))
    opacity = photo_HWC[:, :, 0] / 255
    reference = photo_HWC[:, :, 1] * opacity + 255 * (1 - opacity)
    assert np.abs(pixels - reference[:, :, None]).max() <= 1.01
    assert changes == ("16 bits a channel scaled to 8", "transparency laid on white")


def test_a_16_bit_colour_key_hides_its_colour_only(reads):
    gray = np.array([[0, 0x0A00, 30000]], np.uint16)
    pixels, _ = reads(png16(gray, 0, key=(0x0A00,)))
    assert pixels[0, :, 0].tolist() == [0, 255, 117]
    colour = np.repeat(gray[:, :, None], 3, axis=2)
    pixels, _ = reads(png16(colour, 2, key=(0x0A00, 0x0A00, 0x0A00)))
    assert pixels[0, :, 0].tolist() == [0, 255, 117]


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_on_white_and_hides_what_lies_under_it(reads, photo_HWC, format):
    alpha_HW = np.tile(np.linspace(0, 255, photo_HWC.shape[1]).astype(np.uint8), (len(photo_HWC), 1))
    rgba = np.dstack([photo_HWC, alpha_HW])
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    pixels, changes = reads(encode(rgba, format, **options))
    opacity = (alpha_HW / 255.0)[:, :, None]
    assert np.abs(pixels - (photo_HWC * opacity + 255 * (1 - opacity))).max() <= 1
    assert (pixels[:, 0] == 255).all()
    assert changes == ("transparency laid on white",)


def test_an_opaque_alpha_channel_changes_nothing(reads, photo_HWC):
    pixels, changes = reads(encode(np.dstack([photo_HWC, np.full(photo_HWC.shape[:2], 255, np.uint8)]), "PNG"))
    assert np.array_equal(pixels, photo_HWC)
    assert changes == ()


def test_gray_with_alpha(reads, photo_HWC):
    image = Image.merge("LA", [Image.fromarray(photo_HWC[:, :, 0]), Image.fromarray(photo_HWC[:, :, 1])])
    pixels, changes = reads(encode(image, "PNG"))
    opacity = photo_HWC[:, :, 1] / 255
    reference = photo_HWC[:, :, 0] * opacity + 255 * (1 - opacity)
    assert np.abs(pixels - reference[:, :, None]).max() <= 1
    assert changes == ("transparency laid on white",)


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_palette_with_transparency(reads, photo_HWC, format):
    image = Image.fromarray(photo_HWC).quantize(64)
    indices_HW = np.asarray(image)
    hidden = int(indices_HW[0, 0])
    pixels, changes = reads(encode(image, format, transparency=hidden))
    reference = np.asarray(image.convert("RGB")).astype(int)
    reference[indices_HW == hidden] = 255
    assert np.array_equal(pixels, reference)
    assert changes == ("transparency laid on white",)


def test_a_palette_without_transparency(reads, photo_HWC):
    image = Image.fromarray(photo_HWC).quantize(64)
    pixels, changes = reads(encode(image, "PNG"))
    assert np.array_equal(pixels, np.asarray(image.convert("RGB")))
    assert changes == ()


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk(reads, photo_HWC, format):
    cmyk = np.dstack([255 - photo_HWC, np.zeros(photo_HWC.shape[:2], np.uint8)])
    options = {"quality": 95} if format == "JPEG" else {}
    pixels, changes = reads(encode(Image.fromarray(cmyk, "CMYK"), format, **options))
    assert np.abs(pixels - photo_HWC).mean() <= (3 if format == "JPEG" else 0)
    assert changes == ("CMYK converted to RGB",)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "GIF"])
def test_one_bit(reads, photo_HWC, format):
    bits = Image.fromarray(photo_HWC).convert("1")
    pixels, changes = reads(encode(bits, format))
    assert np.array_equal(pixels[:, :, 0], np.asarray(bits) * 255)
    assert changes == ()


def test_gray(reads, photo_HWC):
    pixels, changes = reads(encode(photo_HWC[:, :, 1], "JPEG", quality=95))
    assert np.abs(pixels - photo_HWC[:, :, 1:2]).mean() < 3
    assert changes == ()


@pytest.mark.parametrize(
    ("format", "options", "note"),
    [
        ("GIF", {}, "first of 3 frames"),
        ("WEBP", {"lossless": True}, "first of 3 frames"),
        ("PNG", {}, "first of 3 frames"),
        ("TIFF", {}, "first of 3 pages"),
    ],
)
def test_the_first_frame_is_taken(reads, photo_HWC, format, options, note):
    frames = [Image.fromarray(photo_HWC).quantize(32).convert("RGB").rotate(turn) for turn in (0, 90, 180)]
    pixels, changes = reads(encode(frames[0], format, save_all=True, append_images=frames[1:], **options))
    assert np.array_equal(pixels, np.asarray(frames[0]))
    assert changes == (note,)


def test_a_phones_jpeg_with_a_second_picture_behind_it_is_a_jpeg(reads, photo_HWC):
    frames = [Image.fromarray(photo_HWC), Image.fromarray(photo_HWC[::2, ::2])]
    data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    pixels, changes = reads(data)
    assert pixels.shape == photo_HWC.shape
    assert changes == ()


def icc_profile(space, curves_and_colours):
    """A minimal ICC v2 display profile; `curves_and_colours` are its tags (ICC.1:2001-04, section 6)."""
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)}
    tags[b"cprt"] = b"text\0\0\0\0none\0"
    tags[b"wtpt"] = xyz(0.9642, 1.0, 0.8249)
    tags |= curves_and_colours
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = struct.pack(">I", start + len(body))
    header = size + bytes(4) + b"\x02\x10\0\0" + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    return (header + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)).ljust(128, b"\0") + table + body


def xyz(*values):
    return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(value * 65536) for value in values))


def gamma(value):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def srgb_curve(linear):
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


ADOBE_TO_PCS = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB_TO_PCS = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def test_an_embedded_colour_profile_is_converted_to_srgb(reads, photo_HWC):
    colours = {name: xyz(*column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), ADOBE_TO_PCS.T, strict=True)}
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma(2.19921875))
    pixels, changes = reads(encode(photo_HWC, "PNG", icc_profile=icc_profile(b"RGB ", colours | curves)))
    linear = (photo_HWC / 255) ** 2.19921875
    reference = srgb_curve(linear @ (np.linalg.inv(SRGB_TO_PCS) @ ADOBE_TO_PCS).T)
    assert np.abs(pixels - reference).mean() < 0.6
    assert np.abs(pixels - photo_HWC).mean() > 2
    assert changes == ("colours converted to sRGB from test",)


def test_a_gray_profile_is_converted_too(reads, photo_HWC):
    gray_HW = photo_HWC[:, :, 1]
    pixels, _ = reads(encode(gray_HW, "PNG", icc_profile=icc_profile(b"GRAY", {b"kTRC": gamma(1.0)})))
    assert np.abs(pixels[:, :, 0] - srgb_curve(gray_HW / 255)).mean() < 1


def test_profiles_of_real_photographs(photos):
    changes = {photo.name: decode(photo).changes for photo in photos}
    assert changes["rocket.jpg"] == ("colours converted to sRGB from Adobe RGB (1998)",)
    assert changes["astronaut.png"] == ()  # its profile is sRGB


def test_a_damaged_profile_does_not_cost_the_picture(reads, photo_HWC):
    pixels, changes = reads(encode(photo_HWC, "PNG", icc_profile=b"rubbish" * 30))
    assert np.array_equal(pixels, photo_HWC)
    assert changes == ("its colour profile is damaged and was left out",)


def test_floating_point_tiffs(reads, photo_HWC):
    gray_HW = photo_HWC[:, :, 1].astype(np.float32) / 255
    assert np.array_equal(reads(encode(gray_HW, "TIFF"))[0][:, :, 0], photo_HWC[:, :, 1])
    with pytest.raises(Unreadable, match="floating-point"):
        reads(encode(gray_HW * 255, "TIFF"))
    with pytest.raises(Unreadable, match="32-bit"):
        reads(encode(photo_HWC[:, :, 1].astype(np.int32), "TIFF"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "damaged"),
        (b"\xff\xd8\xff\xe0 not really", "damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not of a format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not of a format"),
    ],
)
def test_what_is_no_picture_is_told(reads, data, reason):
    with pytest.raises(Unreadable, match=reason):
        reads(data)


@pytest.mark.parametrize("side", [8100, 12_000, 60_000])
def test_too_many_pixels_are_refused_before_decoding(reads, side):
    header = png16(np.zeros((1, 1), np.uint16), 0)
    huge = struct.pack(">II", side, side)
    body = header[16 + 8 : 29]
    data = header[:16] + huge + body + struct.pack(">I", zlib.crc32(b"IHDR" + huge + body)) + header[33:]
    with pytest.raises(Unreadable, match="more than 64,000,000 pixels"):
        reads(data)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_cut_off_picture_is_refused(reads, photo_HWC, format):
    data = encode(photo_HWC, format)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(Unreadable, match=r"damaged|floating"):
            reads(data[: int(len(data) * share)])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_hostile_bytes_raise_nothing_else(tmp_path, small_encoded, data):
    encoded = bytearray(data.draw(st.sampled_from(small_encoded)))
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(encoded) - 1), st.integers(0, 255)), max_size=6)
    ):
        encoded[position] = value
    path = tmp_path / "hostile"
    path.write_bytes(bytes(encoded))
    try:
        decoded = decode(path)
    except Unreadable:
        return
    assert decoded.image.mode == "RGB"


@pytest.fixture(scope="module")
def small_encoded(photo_HWC):
    small = photo_HWC[::16, ::16]
    return [encode(small, format) for format in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")]


def test_errors_name_the_picture(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DatasetError, match=r"broken\.png cannot be read"):
        open_rgb(tmp_path / "broken.png")
    with pytest.raises(DatasetError, match=r"gone\.png is gone"):
        open_rgb(tmp_path / "gone.png")


def test_thumbnails_are_small_upright_and_made_once(dataset, photo_HWC):
    picture = dataset.pictures()[0]
    path = thumbnail(dataset.folder, picture.file, 128)
    assert path.parent == dataset.folder / "thumbs"
    with Image.open(path) as image:
        assert (image.format, image.size) == ("WEBP", (128, 128))
        small = np.asarray(open_rgb(dataset.path(picture)).resize((128, 128), Image.Resampling.LANCZOS)).astype(int)
        assert np.abs(np.asarray(image.convert("RGB")) - small).mean() < 6
    made = path.stat().st_mtime_ns
    assert thumbnail(dataset.folder, picture.file, 128) == path
    assert path.stat().st_mtime_ns == made
    assert thumbnail(dataset.folder, picture.file) != path


def test_a_thumbnail_of_a_turned_jpeg(dataset, photo_HWC):
    exif = Image.Exif()
    exif[0x0112] = 6
    (dataset.images / "big.jpg").write_bytes(encode(np.tile(photo_HWC, (4, 4, 1)), "JPEG", exif=exif))
    with Image.open(thumbnail(dataset.folder, "big.jpg", 96)) as image:
        assert image.size == (64, 96)


@pytest.mark.parametrize("file", ["../dataset.sqlite", "", ".", "..", "no.png", "/etc/passwd", "a/b.png"])
def test_a_thumbnail_is_made_of_pictures_only(dataset, file):
    with pytest.raises(DatasetError, match="no picture"):
        thumbnail(dataset.folder, file)
    assert not (dataset.folder / "thumbs").exists()
