import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lora_lightning.datasets.buckets import Bucket, choose, crop_box

sides = st.integers(1, 9000)
usual_sides = st.integers(64, 6000)
resolutions = st.lists(st.integers(4, 128).map(lambda n: 16 * n), min_size=1, max_size=4)


@given(sides, sides, resolutions)
def test_every_picture_has_buckets_on_the_grid(width, height, wanted):
    buckets = choose(width, height, wanted)
    assert 1 <= len(buckets) <= len(wanted)
    assert len(set(buckets)) == len(buckets)
    assert all(side >= 16 and side % 16 == 0 for bucket in buckets for side in (bucket.width, bucket.height))


@given(st.integers(16, 9000), st.integers(16, 9000), resolutions)
def test_nothing_is_enlarged(width, height, wanted):
    for bucket in choose(width, height, wanted):
        assert bucket.width <= width
        assert bucket.height <= height


@given(usual_sides, usual_sides, resolutions)
def test_areas_are_about_the_resolution_squared(width, height, wanted):
    ceiling = (max(wanted) + 16) ** 2
    for bucket in choose(width, height, wanted):
        # both sides are off by less than 16 pixels
        limit = 16 * (bucket.width + bucket.height) + 256
        assert bucket.width * bucket.height <= ceiling + limit
        if width * height >= 1.2 * max(wanted) ** 2 + 64 * (width + height):
            assert min(abs(bucket.width * bucket.height - r * r) for r in wanted) <= limit


@given(st.integers(256, 6000), st.floats(0.4, 2.5), resolutions)
def test_little_is_cut_off(width, aspect, wanted):
    height = round(width / aspect)
    for bucket in choose(width, height, wanted):
        box = crop_box(width, height, bucket)
        lost = 1 - bucket.width * bucket.height / (box.resized_width * box.resized_height)
        assert lost <= 16 / min(bucket.width, bucket.height)


@given(sides, sides, st.integers(1, 256), st.integers(1, 256))
def test_the_crop_has_the_size_of_the_bucket_and_lies_inside(width, height, columns, rows):
    bucket = Bucket(16 * columns, 16 * rows)
    box = crop_box(width, height, bucket)
    assert (box.right - box.left, box.bottom - box.top) == (bucket.width, bucket.height)
    assert 0 <= box.left <= box.right <= box.resized_width
    assert 0 <= box.top <= box.bottom <= box.resized_height
    assert box.resized_width == bucket.width or box.resized_height == bucket.height
    assert abs(box.left - (box.resized_width - box.right)) <= 1
    assert abs(box.top - (box.resized_height - box.bottom)) <= 1
    scale = max(bucket.width / width, bucket.height / height)
    assert math.isclose(box.resized_width, width * scale, abs_tol=0.5001)
    assert math.isclose(box.resized_height, height * scale, abs_tol=0.5001)


@pytest.mark.parametrize(
    ("size", "wanted", "buckets"),
    [
        ((1024, 1024), (512, 768, 1024), [(512, 512), (768, 768), (1024, 1024)]),
        ((1000, 1000), (512, 768, 1024), [(512, 512), (768, 768)]),
        ((4032, 3024), (1024,), [(1168, 880)]),
        ((451, 300), (512, 768, 1024), [(448, 288)]),
        ((1920, 1080), (1024, 512), [(688, 384), (1360, 768)]),
        ((2000, 10), (512,), [(3168, 16)]),
        ((10, 10), (512,), [(16, 16)]),
    ],
)
def test_choose_by_example(size, wanted, buckets):
    assert choose(*size, wanted) == [Bucket(*bucket) for bucket in buckets]


def test_a_real_photograph_is_cut_in_its_middle(photos):
    with Image.open(photos[3]) as image:  # 451 x 300
        box = crop_box(*image.size, Bucket(256, 256))
        cut = image.resize((box.resized_width, box.resized_height)).crop((box.left, box.top, box.right, box.bottom))
    assert (box.resized_width, box.resized_height, box.left, box.top) == (385, 256, 64, 0)
    assert cut.size == (256, 256)
