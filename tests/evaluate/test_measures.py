import numpy as np
import pytest

from lora_lightning.evaluate import measures


def world(style, seed=0, count=12):
    """Pictures of varied content: `style` 0 is how the base draws them, 1 how the training pictures look."""
    random = np.random.default_rng(seed)
    content = np.zeros((count, 16))
    content[:, 4:] = random.normal(size=(count, 12))
    look = np.eye(16)[0] * (1 - style) + np.eye(16)[1] * style
    return measures.unit(content + 3 * look + random.normal(size=(count, 16)) * 0.01)


STYLE = measures.Style.between(world(0), world(1))
BASE = world(0, seed=2)


def test_style_transfer_is_0_for_the_base_and_1_for_the_true_style_whatever_is_shown():
    assert STYLE.visible
    assert measures.style_transfer(BASE, BASE, STYLE).value == 0
    assert measures.style_transfer(BASE, world(1, seed=2), STYLE).value == pytest.approx(1, abs=0.05)
    assert 0.3 < measures.style_transfer(BASE, world(0.5, seed=2), STYLE).value < 0.7


def test_what_cannot_be_seen_is_not_scored():
    random = np.random.default_rng(5)
    chance = measures.Style.between(
        measures.unit(random.normal(size=(12, 64))), measures.unit(random.normal(size=(12, 64)))
    )
    measure = measures.style_transfer(BASE, BASE, chance)
    assert measure.value is None
    assert "encoder" in measure.note
    assert measures.trigger_response(BASE, BASE, BASE, BASE, STYLE).value is None


def test_the_trigger_response_tells_always_on_from_only_with_the_trigger():
    learnt = world(1, seed=2)
    assert measures.trigger_response(BASE, learnt, BASE, learnt, STYLE).value == pytest.approx(0)
    assert measures.trigger_response(BASE, learnt, BASE, BASE, STYLE).value == pytest.approx(1)


def test_content_kept_compares_recall_with_the_base():
    texts = np.eye(16)[:4]
    right = np.arange(4)
    base = measures.unit(texts + 0.1)
    half = base[[0, 1, 3, 2]]
    assert measures.recall(base, texts, right) == 1
    assert measures.content_kept(base, half, texts, right).value == 0.5
    assert measures.prompt_adherence(base, base, texts).value == pytest.approx(1)
