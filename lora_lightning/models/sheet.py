"""A contact sheet: pictures in labelled rows and columns on one page."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

CELL = 384
GAP = 16
LABEL_WIDTH = 260
INK, FAINT, PAPER = (28, 28, 30), (110, 110, 115), (255, 255, 255)


@dataclass(frozen=True)
class Row:
    """Pictures side by side, with what is said at their left: a label, and smaller notes below it."""

    label: str
    pictures: Sequence[Image.Image]
    notes: str = ""


def contact_sheet(
    title: str, columns: Sequence[str], rows: Sequence[Row], subtitle: str = "", side: int = CELL
) -> Image.Image:
    """Draw the sheet; pictures keep their proportions within cells of equal size, `side` pixels at the longer side."""
    width, height = _cell([picture for row in rows for picture in row.pictures], side)
    top = GAP + 40 + (26 if subtitle else 0) + 34
    page = Image.new("RGB", (LABEL_WIDTH + len(columns) * (width + GAP), top + len(rows) * (height + GAP)), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((GAP, GAP), title, INK, _font(28))
    if subtitle:
        pen.text((GAP, GAP + 40), subtitle, FAINT, _font(16))
    for place, column in enumerate(columns):
        pen.text((LABEL_WIDTH + place * (width + GAP), top - 26), column, INK, _font(18))
    for line, row in enumerate(rows):
        y = top + line * (height + GAP)
        _label(pen, row, y, height)
        for place, picture in enumerate(row.pictures):
            fitted = _fit(picture, width, height)
            page.paste(fitted, (LABEL_WIDTH + place * (width + GAP), y))
    return page


def _cell(pictures: Sequence[Image.Image], side: int) -> tuple[int, int]:
    """Width and height of a cell: the common shape of the pictures."""
    aspect = max((picture.width for picture in pictures), default=1) / max(
        (picture.height for picture in pictures), default=1
    )
    return (side, round(side / aspect)) if aspect >= 1 else (round(side * aspect), side)


def _fit(picture: Image.Image, width: int, height: int) -> Image.Image:
    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _label(pen: ImageDraw.ImageDraw, row: Row, y: int, height: int) -> None:
    lines = [(text, INK, 18) for text in wrap(row.label, 26)] + [(text, FAINT, 14) for text in wrap(row.notes, 34)]
    most = max(1, height // 22)
    if len(lines) > most:
        lines = [*lines[: most - 1], ("...", FAINT, 14)]
    for text, colour, size in lines:
        pen.text((GAP, y), text, colour, _font(size))
        y += round(size * 1.4)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that ships inside Pillow (Aileron)."""
    return ImageFont.load_default(size)
