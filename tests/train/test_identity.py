"""A run is gone on with as what it was begun, or not at all; its weights can always begin another."""

import json

import pytest
import torch

from lora_lightning.check import check
from lora_lightning.errors import InputError
from lora_lightning.runs.folder import RunFolder
from tests.train.toy import saved

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
BARE = ("sample.prompts=[]", "train.checkpoint_every=2")


@pytest.fixture
def stopped(train, recipe, home, monkeypatch):
    """A run that ended after step 4 with a checkpoint, before its LoRA was saved."""
    from lora_lightning.train.callbacks.pictures import PictureLosses

    original = PictureLosses.on_train_batch_end

    def until_5(callback, trainer, *rest):
        if trainer.global_step == 5:
            raise RuntimeError("that is all")
        original(callback, trainer, *rest)

    monkeypatch.setattr(PictureLosses, "on_train_batch_end", until_5)
    with pytest.raises(Exception, match="that is all"):
        train(recipe(*BARE))
    monkeypatch.undo()
    return RunFolder(home.run("short"))


def test_a_changed_recipe_is_refused_and_the_difference_shown(stopped, train, recipe):
    with pytest.raises(InputError) as caught:
        train(recipe(*BARE, "train.learning_rate=0.5", "lora.rank=8", "trigger=OTHER"))
    message = caught.value.message
    assert "train.learning_rate: 0.001 then, 0.5 now" in message
    assert "lora.rank: 4 then, 8 now" in message
    assert "trigger: TOK then, OTHER now" in message
    assert message.count("\n") == 3
    assert "runs clone short lora.init_from=short" in caught.value.hint
    assert saved(stopped.path, 4)["global_step"] == 4  # nothing was lost


def test_a_changed_picture_or_caption_is_refused(stopped, train, recipe):
    frozen = stopped.path / "dataset.jsonl"
    lines = frozen.read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows[1]["caption"] = "TOK, something else"
    frozen.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"dataset.jsonl line 2: \w+ then, \w+ now"):
        train(recipe(*BARE))


def test_what_changes_nothing_learned_may_change(stopped, train, recipe):
    outcome = train(recipe("train.checkpoint_every=1", "train.gradient_checkpointing=true", "dataset.workers=1"))
    assert outcome.report["steps"] == 6


def test_before_the_first_checkpoint_everything_may_change(train, recipe, home, monkeypatch):
    from lora_lightning.models.families.flux1 import Flux1

    monkeypatch.setattr(Flux1, "load_transformer", lambda *_: 1 / 0)
    with pytest.raises(Exception, match="division"):
        train(recipe(*BARE))
    monkeypatch.undo()
    assert train(recipe(*BARE, "train.learning_rate=0.002")).report["steps"] == 6


def test_a_new_run_begins_with_the_weights_of_another_that_has_no_lora(stopped, train, recipe, home):
    learned = saved(stopped.path, 4)["state_dict"]
    train(recipe("name=next", "lora.init_from=short", "train.learning_rate=1e-12", "train.weight_decay=0", *BARE))
    after = saved(home.run("next"), 6)["state_dict"]
    assert all(torch.allclose(after[name], learned[name], atol=1e-9) for name in learned)
    assert any(weight.abs().max() > 0 for name, weight in learned.items() if "lora_B" in name)


def test_it_begins_with_the_moving_average_and_with_any_checkpoint(train, recipe, home):
    train(recipe("name=first", "train.ema_decay=0.5", *BARE))
    average = saved(home.run("first"), 4)["average"]["values"]
    path = home.run("first") / "checkpoints" / "0000004.ckpt"
    train(recipe("name=next", f"lora.init_from={path}", "train.learning_rate=1e-12", "train.weight_decay=0", *BARE))
    after = saved(home.run("next"), 6)["state_dict"]
    assert all(torch.allclose(after[name], average[name], atol=1e-9) for name in average)


def test_another_adapters_weights_are_refused(stopped, train, recipe):
    with pytest.raises(InputError, match="another adapter") as caught:
        train(recipe("name=next", "lora.init_from=short", "lora.rank=8", *BARE))
    assert "lora.rank" in caught.value.hint


def test_check_knows_what_cannot_be(home, recipe):
    def problems(*overrides):
        report = check(recipe(*overrides), home)
        return {p.where: p.message for p in report.blockers}, {p.where: p.message for p in report.warnings}

    blockers, _ = problems("train.result=best", "lora.init_from=nobody")
    assert "no picture is held out" in blockers["train.result"]
    assert "no run 'nobody'" in blockers["lora.init_from"]
    blockers, warnings = problems("train.stages=['3 at 1e-4']", "train.optimizer=prodigy")
    assert "every stage is kept" in warnings["train.stages"]
    assert "will hardly move" in warnings["train.learning_rate"]
    assert not blockers.keys() & {"train.stages", "train.learning_rate"}


def test_best_without_held_out_pictures_is_refused(train, recipe):
    with pytest.raises(InputError, match=r"train.result needs held-out pictures"):
        train(recipe("train.result=best"))
