from hypothesis import given
from hypothesis import strategies as st

from lora_lightning.caption.loops import runs_in_circles

TOKENS = st.integers(0, 50)


@given(st.lists(TOKENS), st.lists(TOKENS, min_size=1, max_size=64))
def test_a_passage_three_times_over_is_a_loop_whatever_came_before(before, passage):
    times = max(3, -(-24 // len(passage)))
    assert runs_in_circles(before + passage * times)


@given(st.permutations(range(120)))
def test_a_text_without_repetition_is_none(ids):
    assert not runs_in_circles(ids)


def test_a_list_that_repeats_its_commas_is_none():
    assert not runs_in_circles([token for word in range(100) for token in (word + 1, 0)])


def test_twice_is_not_enough():
    passage = list(range(30))
    assert not runs_in_circles(passage * 2)
    assert not runs_in_circles([7] * 23)
