"""Several processes train one adapter: the same steps as one, stopped and gone on with together."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_lightning.runs.folder import RunFolder
from lora_lightning.train.ranks import Ranks
from lora_lightning.train.validation import HeldOut
from tests.train.together import EVEN
from tests.train.toy import Toy, assert_same, saved

ROOT = Path(__file__).parents[2]
STOPS = [[0, 2], [1, 5]]


@pytest.fixture(scope="module")
def folder(tiny_flux, tmp_path_factory):
    """What two processes have trained: without a break, and with SIGTERM to the main one and to the other.

    The base is whole in both up to the first stop, and from then on each holds a half of it.
    """
    folder = tmp_path_factory.mktemp("together") / "runs"
    command = [sys.executable, "-m", "tests.train.together", str(folder), str(tiny_flux), json.dumps(STOPS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_two_processes_with_one_sample_each_make_the_steps_of_one_with_both(folder, toy, tmp_path):
    even = Toy(toy.family, toy.pictures[:EVEN])
    even.fit(tmp_path, steps=8, accumulate=2, ema_decay=0.9, batch_size=2, adapter={"dropout": 0.0})
    alone, both = (saved(run, 1)["optimizer_states"][0]["state"] for run in (tmp_path, folder / "plain"))
    for number, state in alone.items():
        torch.testing.assert_close(both[number]["exp_avg"], state["exp_avg"], rtol=1e-4, atol=1e-8)  # 0.1 x gradient
    for row, other in zip(RunFolder(tmp_path).metrics(), RunFolder(folder / "plain").metrics(), strict=True):
        assert row == pytest.approx(other, rel=1e-3)


def test_a_stop_of_either_is_met_at_the_same_step_and_gone_on_with_exactly_with_the_base_in_shards(folder):
    assert json.loads((folder / "ends.json").read_text()) == [[step + 1] * 2 for _, step in STOPS] + [[8, 8]]
    assert_same(saved(folder / "straight", 8), saved(folder / "stopped", 8))
    assert RunFolder(folder / "straight").metrics() == RunFolder(folder / "stopped").metrics()


def test_with_the_base_in_shards_the_main_process_draws_alone_and_its_error_is_everyones(folder):
    assert {(folder / f"sample{rank}.txt").read_text() for rank in (0, 1)} == {"a bad sample"}


def test_the_main_process_alone_writes_and_knows_of_all_pictures(folder):
    rows = [json.loads(line) for line in (folder / "straight" / "pictures.jsonl").read_text().splitlines()]
    assert sum(row["seen"] for row in rows) == 8 * 2 * 2
    assert [row["step"] for row in RunFolder(folder / "straight").metrics()] == list(range(1, 9))


def test_validation_in_shares_gives_the_figures_of_one(folder, toy):
    alone = HeldOut(toy.pictures[:3], seed=1, batch_size=8).losses(toy.module())
    assert np.array_equal(np.load(folder / "validation.npy"), alone)


def test_validation_in_shares_is_as_many_forward_passes_for_each(toy, monkeypatch):
    """Six units and four processes: two get one more of those that others have, and it does not count."""
    module, told = toy.module(), []
    alone = HeldOut(toy.pictures[:3], seed=1, batch_size=8).losses(module)
    monkeypatch.setattr(Ranks, "gather", lambda _, mine: told.append(mine) or (told + [mine] * 4)[:4])
    for number in range(4):
        found = HeldOut(toy.pictures[:3], seed=1, batch_size=8, ranks=Ranks(number, 4)).losses(module)
    assert [len(mine) for mine in told] == [2, 2, 2, 2]
    assert np.array_equal(found, alone)


def test_each_encodes_its_share_and_an_error_of_one_is_an_error_of_all(folder):
    made = [line.split() for line in (folder / "entries" / "made.txt").read_text().splitlines()]
    assert sorted(entry for _, entry in made) == [str(number) for number in range(7)]
    assert sorted(rank for rank, _ in made) == ["0"] * 4 + ["1"] * 3
    assert {(folder / "entries" / f"error{rank}.txt").read_text() for rank in (0, 1)} == {"a bad picture"}
