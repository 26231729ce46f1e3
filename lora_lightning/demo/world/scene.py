"""What a picture of the world shows: drawing, style, place and background, sampled as plain numbers."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from .concepts import BASE_STYLES, STYLES, withheld_pairs

CANVAS = 128  # pixels; flux-mini's native size
COLOURS = {
    "red": (226, 82, 82),
    "orange": (244, 160, 74),
    "yellow": (247, 219, 92),
    "green": (112, 190, 96),
    "teal": (66, 176, 176),
    "blue": (92, 142, 232),
    "purple": (158, 110, 214),
    "pink": (247, 168, 200),
    "gray": (158, 160, 166),
    "white": (246, 246, 244),
}
COLOUR_NAMES = tuple(COLOURS)
BACKGROUNDS = ("plain", "gradient", "checkered", "striped", "dotted", "two-tone")
# Nine cells in reading order, then "large", which fills the middle and needs no place in a caption.
PLACES = (
    "in the top left",
    "at the top",
    "in the top right",
    "on the left",
    "in the center",
    "on the right",
    "in the bottom left",
    "at the bottom",
    "in the bottom right",
    "large",
)
LARGE = 9
CELL_CENTRES = (36.0, 64.0, 92.0)
NAMELESS = -1


@dataclass(frozen=True)
class Thing:
    """One drawn object; centre and size in pixels, tilt in degrees."""

    drawing: int  # column of the atlas
    x: float
    y: float
    size: float
    tilt: float = 0.0


@dataclass(frozen=True)
class Scene:
    """Everything that decides a picture. `place` counts for one thing; two things stand side by side or stacked."""

    style: int  # row of the atlas
    things: tuple[Thing, ...]
    place: int
    stacked: bool
    background: int
    colour: int
    second_colour: int
    shades: tuple[tuple[int, int, int], tuple[int, int, int]] = field(default=((0, 0, 0), (0, 0, 0)))


def _shade(draw: random.Random, colour: int) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, part + draw.randint(-7, 7))) for part in COLOURS[COLOUR_NAMES[colour]])
    return red, green, blue


def put(draw: random.Random, drawing: int, place: int) -> Thing:
    """A single thing at a place of PLACES, with a little jitter."""
    jitter = [draw.uniform(-2, 2) for _ in range(2)]
    tilt = draw.uniform(-4, 4)
    if place == LARGE:
        return Thing(drawing, 64 + jitter[0], 64 + jitter[1], draw.uniform(92, 104), tilt)
    x, y = CELL_CENTRES[place % 3], CELL_CENTRES[place // 3]
    return Thing(drawing, x + jitter[0], y + jitter[1], draw.uniform(62, 70), tilt)


class Sampler:
    """Draws random scenes. `styles` are atlas rows; pairs in `without` (drawing, style) never come up."""

    def __init__(
        self,
        known: int,
        present: list[list[bool]],
        styles: list[int],
        *,
        nameless_share: float = 0.0,
        two_share: float = 0.15,
        hold_out: bool = True,
    ) -> None:
        without = {(drawing, style) for drawing, style in withheld_pairs(known)} if hold_out else set()
        self.styles = styles
        self.known, self.nameless_share, self.two_share = known, nameless_share, two_share
        self.drawings = {
            style: [d for d in range(known) if present[style][d] and (d, style) not in without] for style in styles
        }
        self.nameless = {style: [d for d in range(known, len(present[style])) if present[style][d]] for style in styles}

    def scene(self, draw: random.Random) -> Scene:
        """One random scene; all pairs of style and drawing are equally likely."""
        style = draw.choice(self.styles)
        pool = self.nameless if draw.random() < self.nameless_share and self.nameless[style] else self.drawings
        drawing = draw.choice(pool[style])
        if draw.random() < self.two_share:
            return self._pair(draw, style, drawing)
        place = LARGE if draw.random() < 0.45 else draw.randrange(9)
        return finish(draw, style, (put(draw, drawing, place),), place)

    def _pair(self, draw: random.Random, style: int, first: int) -> Scene:
        stacked, size = draw.random() < 0.4, draw.uniform(56, 61)
        things = []
        for drawing, offset in ((first, 34.0), (draw.choice(self.drawings[style]), 94.0)):
            x, y = (64.0, offset) if stacked else (offset, 64.0)
            things.append(Thing(drawing, x + draw.uniform(-2, 2), y + draw.uniform(-2, 2), size, draw.uniform(-4, 4)))
        return finish(draw, style, tuple(things), LARGE, stacked)


def finish(
    draw: random.Random,
    style: int,
    things: tuple[Thing, ...],
    place: int,
    stacked: bool = False,
    *,
    background: int | None = None,
    colour: int | None = None,
) -> Scene:
    """Put things before a random (or given) background; the second colour differs for two-tone only."""
    if background is None:
        background = draw.choices(range(len(BACKGROUNDS)), weights=(5, 2, 2, 2, 2, 2))[0]
    if colour is None:
        colour = draw.randrange(len(COLOURS))
    shade = _shade(draw, colour)
    if BACKGROUNDS[background] == "two-tone":
        second = draw.choice([other for other in range(len(COLOURS)) if other != colour])
        return Scene(style, things, place, stacked, background, colour, second, (shade, _shade(draw, second)))
    light = 0.55 if COLOUR_NAMES[colour] != "white" else -0.1
    paler = tuple(round(part + (255 - part) * light) if light > 0 else round(part * (1 + light)) for part in shade)
    return Scene(style, things, place, stacked, background, colour, colour, (shade, paler))


def base_rows() -> list[int]:
    """Atlas rows of the styles that flux-mini may see."""
    return [STYLES.index(style) for style in BASE_STYLES]
