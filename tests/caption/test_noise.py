import torch

from lora_lightning.caption.base import Sampling
from lora_lightning.caption.noise import Chooser, choose, generator, processors

CPU = torch.device("cpu")


def draw(logits, sampling, rows):
    scores = processors(sampling, [generator(seed, CPU) for seed in range(rows)])(
        torch.zeros(rows, 1, dtype=torch.long), logits.repeat(rows, 1)
    )
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
    assert len(processors(Sampling(0.0, 0.9), [generator(1, CPU)])) == 0


def test_each_row_chooses_in_its_own_way():
    logits = torch.randn(4, 50, generator=generator(0, CPU))
    samplings = {0: Sampling(0.0), 1: Sampling(1.5), 3: Sampling(0.8, 0.5)}
    rows = {row: Chooser(sampling, generator(row, CPU)) for row, sampling in samplings.items()}
    ids = choose(logits, rows)
    for row, sampling in samplings.items():
        alone = choose(logits[row : row + 1], {0: Chooser(sampling, generator(row, CPU))})
        assert ids[row] == alone[0]
    assert ids[2] == logits[2].argmax()
