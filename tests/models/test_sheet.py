"""The contact sheet: every picture is there, whole, in its place, beside its label."""

import numpy as np
from PIL import Image

from lora_lightning.models.sheet import GAP, LABEL_WIDTH, PAPER, Row, contact_sheet

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30)]


def sheet(width, height, label="with trigger", notes="a cup (seed 3)", **options):
    pictures = [Image.new("RGB", (width, height), colour) for colour in COLOURS]
    rows = [Row(label, pictures[:2], notes), Row("without trigger", pictures[2:])]
    return contact_sheet("my-lora", ("base", "with LoRA"), rows, "FLUX.1-dev, 100 steps", **options)


def places(page, colour):
    found = np.argwhere((np.asarray(page) == colour).all(-1))
    return (*found.min(0).tolist(), *(found.max(0) - found.min(0) + 1).tolist())


def test_pictures_stand_in_a_grid_at_one_size_and_in_proportion():
    for width, height, side, options in [(64, 64, 384, {}), (1024, 768, 384, {}), (100, 300, 128, {"side": 128})]:
        page = sheet(width, height, **options)
        (top, left, h, w), (_, right, _, _), (below, _, _, _), _ = (places(page, colour) for colour in COLOURS)
        assert max(w, h) == side
        assert abs(w / h - width / height) < 0.02
        assert left == LABEL_WIDTH
        assert right == left + w + GAP
        assert below == top + h + GAP
        assert page.width == right + w + GAP
        assert page.height == below + h + GAP


def test_labels_are_drawn_left_of_the_pictures_and_never_over_them():
    page = np.asarray(sheet(64, 64, label="a very long label " * 20, notes="and a long note " * 50))
    labels = page[:, :LABEL_WIDTH]
    assert (labels != PAPER).any(-1).sum() > 500
    assert (labels[:, -4:] == PAPER).all()
    clean = np.asarray(sheet(64, 64))
    assert np.array_equal(page[:, LABEL_WIDTH:], clean[:, LABEL_WIDTH:])
    assert not np.array_equal(page, clean)
