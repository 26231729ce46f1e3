"""The fast path through the whole job: the same losses, a file that is proved, and a warning where it cannot be."""

import json

import pytest

from lora_lightning.runs.folder import RunFolder


def losses(train, workspace, recipe):
    train(recipe)
    return [row["loss"] for row in RunFolder(workspace.run(recipe.name)).metrics()]


def test_a_run_learns_the_same_and_proves_its_file(recipe, train, home):
    plain = losses(train, home, recipe("name=plain"))
    fast = losses(train, home, recipe("name=fast", "train.fast=true"))
    again = losses(train, home, recipe("name=again", "train.fast=true", "train.gradient_checkpointing=true"))
    assert len(plain) == 6
    assert fast == pytest.approx(plain, rel=1e-4)
    assert again == fast
    assert home.lora("fast").is_file()
    kept = {name: json.loads((home.run(name) / "plan.json").read_text()) for name in ("plain", "again")}
    assert [kept[name]["fast"] for name in kept] == [False, True]
    assert [kept[name]["plan"]["bare"] for name in kept] == [0, 4]
    assert kept["plain"]["reasons"][1] == "plain blocks: there is no GPU"
    assert json.loads((home.run("again") / "result.json").read_text())["report"]["plan"]["quantize"] == "none"
    assert "no effect" not in RunFolder(home.run("fast")).log_path.read_text()


def test_where_it_cannot_be_the_run_says_so_and_trains(recipe, train, home):
    chosen = recipe("name=dropped", "train.fast=true", "lora.dropout=0.1", "train.steps=2")
    assert len(losses(train, home, chosen)) == 2
    assert "train.fast has no effect" in RunFolder(home.run("dropped")).log_path.read_text()
