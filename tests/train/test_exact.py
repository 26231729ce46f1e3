"""A run that goes on from any of its steps ends, bit for bit, as if it had never been interrupted."""

import pytest

from lora_lightning.runs.folder import RunFolder
from lora_lightning.train.callbacks.guard import Guard
from lora_lightning.train.callbacks.pictures import PictureLosses
from lora_lightning.train.checkpoints import find
from lora_lightning.train.schedule import Schedule, Stretch
from tests.train.toy import assert_same, saved

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")

STEPS = 40
LEARNED = ("state_dict", "optimizer_states", "average", "pictures", "callbacks")
SCHEDULE = Schedule((Stretch(STEPS, 1e-2),), "cosine", warmup=0.2)


def train(toy, folder, **options):
    """Everything at once: dropout, moving average, schedule, clipping, two buckets, what callbacks keep."""
    also = [lambda report: Guard(str), lambda report: PictureLosses(folder / "pictures.jsonl", str)]
    return toy.fit(folder, also=also, learning_rate=SCHEDULE.rate, ema_decay=0.9, **options)


def same_at(one, other, step):
    found = [saved(folder, step) for folder in (one, other)]
    assert_same(*({part: checkpoint[part] for part in LEARNED} for checkpoint in found))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_from_each_of_39_steps(toy, tmp_path, accumulate, workers):
    """From some of them to the end; from the others for two steps: what is equal there is equal after."""
    options = {"accumulate": accumulate, "workers": workers}
    straight = tmp_path / "straight"
    train(toy, straight, steps=STEPS, **options)
    for step in range(1, STEPS):
        last = STEPS if step % 13 == 0 else min(step + 2, STEPS)
        resumed = tmp_path / f"from {step}"
        train(toy, resumed, steps=last, checkpoint=find(RunFolder(straight).checkpoints, step), every=100, **options)
        same_at(straight, resumed, last)
        rows = {int(row["step"]): row for row in RunFolder(straight).metrics()}
        made = RunFolder(resumed).metrics()
        assert [row["step"] for row in made] == list(range(step + 1, last + 1))
        assert made == [rows[int(row["step"])] for row in made]


def test_workers_change_nothing(toy, tmp_path):
    train(toy, tmp_path / "without", steps=6)
    train(toy, tmp_path / "with", steps=6, workers=2)
    same_at(tmp_path / "without", tmp_path / "with", 6)


def test_the_comparison_can_fail(toy, tmp_path):
    """Another seed of the adapter's dropout would go unseen if dropout drew nothing."""
    train(toy, tmp_path / "one", steps=3)
    train(toy, tmp_path / "other", steps=3, adapter={"dropout": 0.0})
    with pytest.raises(AssertionError):
        same_at(tmp_path / "one", tmp_path / "other", 3)
