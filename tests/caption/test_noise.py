import torch

from lora_lightning.caption.base import Sampling
from lora_lightning.caption.noise import processors

CPU = torch.device("cpu")


def draw(logits, sampling, rows):
    scores = processors(sampling, range(rows), CPU)(torch.zeros(rows, 1, dtype=torch.long), logits.repeat(rows, 1))
    return scores.argmax(dim=1)


def test_the_likeliest_of_noisy_scores_is_a_sample_of_the_distribution():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    rows = 20_000
    counts = torch.bincount(draw(logits, Sampling(0.5, 1.0), rows), minlength=4)
    expected = (logits / 0.5).softmax(0) * rows
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 16.3  # 3 degrees of freedom, p = 0.001


def test_top_p_rules_out_the_tail():
    logits = torch.tensor([0.6, 0.3, 0.07, 0.03]).log()
    assert set(draw(logits, Sampling(1.0, 0.8), 2000).tolist()) == {0, 1}


def test_temperature_zero_is_greedy():
    assert len(processors(Sampling(0.0, 0.9), [1], CPU)) == 0
