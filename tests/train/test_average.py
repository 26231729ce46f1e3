"""The moving average of the adapter: its values, and that it is what is drawn, validated and saved."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lora_lightning.models.lora_files import diffusers as lora_file
from lora_lightning.runs.folder import RunFolder
from lora_lightning.train.average import Average
from tests.train.toy import saved

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")

numbers = st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=20)


@given(numbers, st.floats(0.1, 0.999))
def test_it_is_the_weighted_mean_of_what_it_saw(values, decay):
    weight = nn.Parameter(torch.tensor([123.0], dtype=torch.float64))  # the start weighs nothing
    average = Average({"w": weight}, decay)
    for value in values:
        weight.data.fill_(value)
        average.update()
    shares = [decay ** (len(values) - 1 - place) for place in range(len(values))]
    expected = sum(share * value for share, value in zip(shares, values, strict=True)) / sum(shares)
    assert average.values["w"].item() == pytest.approx(expected, abs=1e-9)


def test_the_weights_come_back_bit_for_bit_also_after_an_error():
    weight = nn.Parameter(torch.randn(5, dtype=torch.float32))
    average, address, before = Average({"w": weight}, 0.9), weight.data_ptr(), weight.detach().clone()
    average.update()
    weight.data.add_(1)
    moved = weight.detach().clone()

    def fail():
        with average.applied():
            assert torch.equal(weight, before)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(weight, moved)
    assert weight.data_ptr() == address


def test_training_averages_each_steps_weights_and_is_not_changed_by_it(toy, tmp_path):
    toy.fit(tmp_path / "with", steps=5, ema_decay=0.8)
    toy.fit(tmp_path / "without", steps=5)
    steps = [saved(tmp_path / "with", step) for step in range(1, 6)]
    assert "average" not in saved(tmp_path / "without", 5)
    for name, average in steps[-1]["average"]["values"].items():
        seen = [step["state_dict"][name] for step in steps]
        shares = [0.8 ** (4 - place) for place in range(5)]
        expected = sum(share * weight for share, weight in zip(shares, seen, strict=True)) / sum(shares)
        assert torch.allclose(average, expected, atol=1e-6)
        assert torch.equal(seen[-1], saved(tmp_path / "without", 5)["state_dict"][name])


def test_the_average_is_what_is_saved_and_drawn(train, recipe, home):
    """By the checkpoint: the file holds its average, not its weights; and the sample differs from one without."""
    options = ("train.learning_rate=0.05", "train.sample_every=6")
    plain = train(recipe("name=plain", *options))
    averaged = train(recipe("name=averaged", "train.ema_decay=0.9", *options))
    checkpoint = saved(home.run("averaged"), 6)
    written = lora_file.read(Path(averaged.made["lora"])).tensors
    values = checkpoint["average"]["values"]
    assert len(written) == len(values)
    for key, tensor in written.items():
        name = key.replace(".weight", ".default.weight")
        assert torch.equal(tensor, values[name]), key
        assert not torch.equal(tensor, checkpoint["state_dict"][name]), key
    pictures = [(Path(outcome.made["run"]) / "samples" / "0000006-0.png").read_bytes() for outcome in (plain, averaged)]
    assert pictures[0] != pictures[1]
    metrics = [RunFolder(home.run(name)).metrics() for name in ("plain", "averaged")]
    assert metrics[0] == metrics[1]
