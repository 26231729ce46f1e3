"""Drawing leaves everything else as it was."""

import numpy as np
import pytest
import torch
from PIL import Image

from lora_lightning.errors import Stopped
from lora_lightning.models.sampling import Shot, draw, save_png

SHOT = Shot("a red cup", seed=3, width=64, height=64, steps=2, guidance=3.5)


@pytest.fixture
def pipeline(flux):
    return flux.pipeline(flux.load_transformer())


@pytest.fixture
def text(flux):
    return flux.encode_text([SHOT.prompt])


def test_the_seed_decides_and_the_random_state_is_untouched(pipeline, text):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = np.asarray(draw(pipeline, SHOT, text))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert np.array_equal(np.asarray(draw(pipeline, SHOT, text)), first)
    other = Shot(**{**vars(SHOT), "seed": 4})
    assert not np.array_equal(np.asarray(draw(pipeline, other, text)), first)


def test_gradients_and_mode_are_as_before_even_after_a_stop(pipeline, text):
    def stop():
        raise Stopped("stopped")

    pipeline.transformer.train()
    with pytest.raises(Stopped):
        draw(pipeline, SHOT, text, stop)
    assert pipeline.transformer.training
    assert torch.is_grad_enabled()


def test_it_can_be_given_up_between_any_two_steps(pipeline, text):
    seen = []
    draw(pipeline, SHOT, text, lambda: seen.append(1))
    assert len(seen) == SHOT.steps


def test_a_png_says_how_it_was_made(tmp_path, pipeline, text):
    path = save_png(draw(pipeline, SHOT, text), tmp_path / "a" / "b.png", SHOT.facts() | {"note": "größe 日本"})
    with Image.open(path) as opened:
        assert opened.size == (64, 64)
        assert opened.text == {
            "prompt": "a red cup",
            "seed": "3",
            "width": "64",
            "height": "64",
            "steps": "2",
            "guidance": "3.5",
            "note": "größe 日本",
        }
    assert [child.name for child in path.parent.iterdir()] == ["b.png"]
