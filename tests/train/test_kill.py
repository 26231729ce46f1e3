"""A training that is killed again and again, at any moment, ends as if nothing had happened."""

import json
import subprocess
import sys

import pytest

from lora_lightning.runs.folder import RunFolder
from tests.train.toy import assert_same, saved


def check(tiny_flux, tmp_path, steps, kills):
    command = [sys.executable, "-m", "tests.train.killer", str(tiny_flux), str(tmp_path), str(steps), str(kills)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    assert json.loads(result.stdout.splitlines()[-1]) >= kills // 2
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    found = [saved(folder, steps) for folder in (straight, killed)]
    for part in ("state_dict", "optimizer_states", "average", "pictures", "callbacks"):
        assert_same(*(checkpoint[part] for checkpoint in found), part)
    assert RunFolder(straight).metrics() == RunFolder(killed).metrics()
    assert (straight / "pictures.jsonl").read_bytes() == (killed / "pictures.jsonl").read_bytes()


def test_ten_times_killed(tiny_flux, tmp_path):
    check(tiny_flux, tmp_path, steps=60, kills=10)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_times_killed(tiny_flux, tmp_path):
    check(tiny_flux, tmp_path, steps=2000, kills=200)
