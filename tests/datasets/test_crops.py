"""The views of a picture: bounded, different, inside it, and the same every time."""

from hypothesis import given
from hypothesis import strategies as st

from lora_lightning.datasets.buckets import Bucket, batches_per_epoch, beyond, choose, crop_box, tally
from lora_lightning.datasets.crops import Augment, View, views

sides = st.integers(64, 3000)
shares = st.floats(0, 1)
MIDDLE = (0.5, 0.5)


@given(sides, sides, st.integers(1, 16), st.floats(1, 4), st.booleans(), st.booleans(), shares, shares)
def test_views_are_inside_the_picture_and_have_the_size_of_the_bucket(
    width, height, crops, zoom, flip, enlarge, centre_x, centre_y
):
    bucket = choose(width, height, [512])[0]
    augment = Augment(crops, zoom, flip, enlarge)
    found = views(width, height, bucket, augment, centre=(centre_x, centre_y), key="ab")
    assert found[0] == View(crop_box(width, height, bucket, (centre_x, centre_y)))
    assert len(set(found)) == len(found) <= crops * (1 + flip)
    assert found == views(width, height, bucket, augment, centre=(centre_x, centre_y), key="ab")
    for crop in (view.crop for view in found):
        assert (crop.right - crop.left, crop.bottom - crop.top) == (bucket.width, bucket.height)
        assert 0 <= crop.left <= crop.right <= crop.resized_width
        assert 0 <= crop.top <= crop.bottom <= crop.resized_height
        if not enlarge:
            assert crop.resized_width <= width + 1
            assert crop.resized_height <= height + 1
    assert {view.flipped for view in found} == ({False, True} if flip else {False})


def test_further_crops_differ_between_pictures_and_fewer_are_among_more():
    def crops(count, key):
        return views(2000, 1500, Bucket(512, 384), Augment(count), centre=MIDDLE, key=key)

    assert len(crops(8, "one")) == 8
    assert set(crops(8, "one")) & set(crops(8, "other")) == set(crops(1, "one"))
    assert crops(8, "one")[:3] == crops(3, "one")
    zooms = [view.crop.resized_width / 512 for view in crops(16, "one")]
    assert zooms[0] == 1
    assert all(1 <= zoom <= 1.251 for zoom in zooms)
    assert max(zooms) > 1.1


@given(sides, sides, shares, shares)
def test_the_centre_is_kept_as_far_as_the_edges_allow(width, height, x, y):
    bucket = Bucket(64, 64)
    crop = crop_box(width, height, bucket, (x, y))
    for start, resized, share in ((crop.left, crop.resized_width, x), (crop.top, crop.resized_height, y)):
        assert 0 <= start <= resized - 64
        assert start in (0, resized - 64) or abs(start + 32 - share * resized) <= 1


@given(sides, sides, st.lists(st.sampled_from([256, 512, 768, 1024]), min_size=1, unique=True))
def test_every_picture_is_at_every_resolution_or_beyond_it(width, height, resolutions):
    missed = beyond(width, height, resolutions)
    found = choose(width, height, resolutions)
    assert len(found) == max(1, len(resolutions) - len(missed))
    assert len(choose(width, height, resolutions, enlarge=True)) == len(resolutions)


def test_an_epoch_is_counted_without_training():
    counts = tally([(1024, 1024), (1000, 1000), (600, 400)], [512, 1024], repeats=3)
    assert counts == {Bucket(512, 512): 6, Bucket(1024, 1024): 3, Bucket(592, 400): 3}
    assert batches_per_epoch(counts.values(), 4) == 2 + 1 + 1
    assert sum(tally([(600, 400)], [512, 1024], enlarge=True).values()) == 2
    assert Bucket(1024, 512).tokens == 64 * 32
