"""Sizes by arithmetic are those of what is really made."""

import psutil
import pytest
import torch

from lora_lightning.check import check
from lora_lightning.checks import forecast, machine, planned, sizes
from lora_lightning.models import lora
from lora_lightning.models.base import open_family
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.gpu import Gpu
from lora_lightning.runs.reporter import Reporter
from lora_lightning.train.cache import Cache, read
from lora_lightning.train.examples import freeze
from lora_lightning.train.material import Captions, encode
from lora_lightning.train.parts import Part
from lora_lightning.train.texts import Wording

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


def estimate(report, name):
    return next(each for each in report.estimates if each.name == name)


@pytest.mark.parametrize(
    ("precision", "overrides"),
    [
        ("32-true", []),
        (
            "bf16-mixed",
            ["dataset.resolutions=[48,96]", "dataset.crops=2", "dataset.flip=true", "dataset.shuffle_tags=2"],
        ),
    ],
)
def test_the_cache_is_as_large_as_foretold(workspace, ready, pictures, tmp_path, precision, overrides, write_captions):
    write_captions(pictures, "ZXQ, a, b, c", "ZXQ, one picture in a sentence of words", "ZXQ, d, e")
    recipe = ready(f"train.precision={precision}", *overrides)
    (tmp_path / "run").mkdir()
    cache, data = Cache(tmp_path / "cache"), recipe.dataset
    encode(
        [Part(pictures, freeze(pictures, "ZXQ", tmp_path / "dataset.jsonl"), data.augment)],
        data.resolutions,
        Captions(Wording(data.shuffle_tags, data.keep_tags, recipe.seed)),
        [""],
        family=open_family(recipe.model.base, device=torch.device("cpu"), dtype=DTYPES[precision]),
        cache=cache,
        reporter=Reporter(RunFolder(tmp_path / "run")),
    )
    made = [tensor for path in cache.folder.rglob("*.safetensors") for tensor in read(path).values()]
    shapes = sizes.shapes_of(recipe.model.base)
    assert sum(tensor.numel() * tensor.itemsize for tensor in made) == sizes.cache_bytes(
        recipe, pictures.pictures(), shapes
    )


@pytest.mark.parametrize("targets", ["attention", "all", "modulation", "content", "style"])
@pytest.mark.parametrize("flux2", [False, True])
def test_the_adapter_learns_as_many_numbers_as_foretold(ready, tiny_klein, targets, flux2):
    recipe = ready(f"lora.targets={targets}", "lora.rank=3", *([f"model.base={tiny_klein}"] if flux2 else []))
    family = open_family(recipe.model.base, device=torch.device("cpu"), dtype=torch.float32)
    if targets not in family.lora_targets:
        return
    transformer = family.load_transformer()
    lora.inject(transformer, rank=3, alpha=3.0, targets=family.lora_targets[targets], seed=0)
    learned = sum(weight.numel() for weight in lora.trainable(transformer).values())
    assert sizes.learned(recipe, sizes.shapes_of(recipe.model.base)) == learned


def test_dev_is_known_before_it_is_here(ready):
    """65.4 million numbers at rank 16: what gpu measurements of the full model counted."""
    shapes = sizes.shapes_of("dev")
    assert round(sizes.learned(ready("model.base=dev"), shapes) / 1e6, 1) == 65.4
    assert (shapes.latent_bytes, shapes.text_bytes) == (2.0, 512 * 4096 + 768)
    assert sizes.shapes_of("schnell").text_bytes == 256 * 4096 + 768
    assert sizes.shapes_of("klein-4b") is None
    assert sizes.learned(ready("lora.modules=.*to_q"), shapes) is None


def test_room_and_ram_are_compared_with_this_machine(workspace, ready, monkeypatch):
    report = check(ready(), workspace)
    assert estimate(report, "disk").amount < 1
    assert 3 < estimate(report, "RAM").amount < 3.1
    assert report.warnings == []
    more = check(ready("train.ema_decay=0.9", "lora.rank=64"), workspace)
    assert estimate(more, "disk").amount > estimate(report, "disk").amount

    usage = type("Usage", (), {"free": machine.GIB})
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(sizes, "cache_bytes", lambda *_: 2 * machine.GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": 2 * machine.GIB}))
    problems = {problem.where: problem for problem in check(ready(), workspace).warnings}
    assert set(problems) == {"disk", "RAM"}
    assert "2.0 GiB" in problems["disk"].message
    assert "the machine has 2.0 GiB" in problems["RAM"].message


def test_a_model_that_is_not_here_is_estimated_by_its_name_or_not_at_all(workspace, ready):
    assert 25 < estimate(check(ready("model.base=dev"), workspace), "RAM").amount < 30
    report = check(ready("model.base=some/where"), workspace)
    assert [estimate(report, name).shown for name in ("disk", "RAM")] == ["unknown", "unknown"]


def card(gigabytes, used=0):
    return [Gpu(0, "a card", gigabytes * 1024, used, 0, 0, 0.0, (8, 9))]


def test_vram_is_told_without_a_gpu_by_the_card_that_would_do(workspace, ready):
    fast = ready("model.base=dev", "dataset.resolutions=[1024]", "train.fast=true")
    told = estimate(check(fast, workspace), "VRAM")
    assert 6 < told.amount < 7
    assert told.limit is None
    assert told.why.startswith("no GPU here; a card of 8 GB would run it: base in ")
    exact = ["model.low_vram=false", "train.fast=false", "dataset.resolutions=[1024]"]
    assert "a card of 32 GB" in estimate(check(ready("model.base=dev", *exact), workspace), "VRAM").why
    small = check(ready(), workspace)
    assert not [each for each in small.estimates if each.name == "VRAM"]
    assert estimate(check(ready("model.base=klein-4b"), workspace), "VRAM").shown == "unknown"


def test_vram_is_that_of_the_plan_and_blocks_only_where_nothing_fits(workspace, ready, monkeypatch):
    wanted = ["model.base=dev", "dataset.resolutions=[1024]", "sample.width=1024", "train.fast=true"]
    found = {}
    for name, cards, overrides in (
        ("24", card(24), []), ("busy", card(24, used=20_000), []), ("exact", card(24), ["train.quantize=none"]),
        ("80", card(80), []),
    ):  # fmt: skip
        monkeypatch.setattr(planned, "gpus", lambda cards=cards: cards)
        found[name] = check(ready(*wanted, *overrides), workspace)
    told = {name: estimate(report, "VRAM") for name, report in found.items()}
    assert told["24"].amount <= told["24"].limit < 23.2
    assert "base in int8" in told["24"].why
    assert "base in bf16" in told["80"].why
    assert told["busy"].limit == pytest.approx(told["24"].limit - 1.5)
    blocked = {name: [each.where for each in report.blockers if each.where == "VRAM"] for name, report in found.items()}
    assert blocked == {"24": [], "busy": [], "exact": ["VRAM"], "80": []}
    assert told["exact"].amount > told["exact"].limit
    (problem,) = [each for each in found["exact"].blockers if each.where == "VRAM"]
    assert "model.low_vram=true" in problem.hint
