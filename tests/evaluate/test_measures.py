import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lightning.evaluate import measures


def near(direction, count, spread, seed=0):
    """`count` unit vectors around a direction in 16 dimensions."""
    noise = np.random.default_rng(seed).normal(size=(count, 16)) * spread
    return measures.unit(np.eye(16)[direction] + noise)


TRAINING, BASE = near(0, 12, 0.05), near(1, 12, 0.05, seed=1)


def test_style_transfer_is_0_for_the_base_and_1_for_the_training_pictures():
    assert measures.style_transfer(BASE, BASE, TRAINING).value == 0
    learnt = near(0, 12, 0.05, seed=2)
    assert measures.style_transfer(BASE, learnt, TRAINING).value == pytest.approx(1, abs=0.03)
    halfway = measures.unit(learnt + BASE)
    assert 0.4 < measures.style_transfer(BASE, halfway, TRAINING).value < 0.9


def test_what_cannot_be_seen_is_not_scored():
    measure = measures.style_transfer(TRAINING, TRAINING, TRAINING)
    assert measure.value is None
    assert "encoder" in measure.note
    assert measures.trigger_response(BASE, BASE, BASE, BASE, TRAINING).value is None


def test_the_trigger_response_tells_always_on_from_only_with_the_trigger():
    learnt = near(0, 12, 0.05, seed=2)
    assert measures.trigger_response(BASE, learnt, BASE, learnt, TRAINING).value == pytest.approx(0)
    assert measures.trigger_response(BASE, learnt, BASE, BASE, TRAINING).value == pytest.approx(1)


def test_content_kept_compares_recall_with_the_base():
    texts = np.eye(16)[:4]
    right = np.arange(4)
    base = measures.unit(texts + 0.1)
    half = base[[0, 1, 3, 2]]
    assert measures.recall(base, texts, right) == 1
    assert measures.content_kept(base, half, texts, right).value == 0.5
    assert measures.prompt_adherence(base, base, texts).value == pytest.approx(1)


@given(st.integers(2, 20), st.integers(0, 5))
def test_likeness_of_a_picture_to_itself_is_highest(count, seed):
    pictures = near(3, count, 1.0, seed)
    assert -1 <= measures.ceiling(pictures) <= measures.likeness(pictures, pictures) + 1e-9 <= 1 + 1e-6
