"""The whole job: from the dataset to a LoRA that is proved."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lora_lightning.errors import DatasetError, ModelError, NameProblem
from lora_lightning.models.base import open_family
from lora_lightning.models.lora_files import diffusers as lora_file
from lora_lightning.models.sampling import Shot, draw
from lora_lightning.runs.folder import RunFolder
from lora_lightning.train import finish, shots

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")


def lora_of(outcome):
    return lora_file.read(Path(outcome.made["lora"]))


def assert_same_weights(one, other):
    one, other = lora_of(one).tensors, lora_of(other).tensors
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_everything_that_a_training_makes(train, recipe, home):
    outcome = train(recipe("train.sample_every=3", "lora.alpha=6"))
    run, output = RunFolder(home.run("short")), home.output / "short"
    assert outcome.made["run"] == str(run.path)
    assert outcome.made["lora"] == str(output / "short.safetensors")
    assert outcome.made["sheet"] == str(output / "samples" / "sheet.png")
    assert [Path(image).name for image in outcome.made["images"]] == ["0000006-0.png", "sheet.png"]
    assert sorted(file.relative_to(output).as_posix() for file in output.rglob("*") if file.is_file()) == [
        "recipe.yaml",
        "samples/0000006-0.png",
        "samples/sheet.png",
        "short.safetensors",
    ]
    assert (output / "recipe.yaml").read_text() == run.recipe_path.read_text()
    assert sorted(path.name for path in run.samples.iterdir()) == [
        "0000000-0.png",
        "0000003-0.png",
        "0000006-0.png",
        "sheet.png",
    ]
    assert {path.name for path in run.path.iterdir()} == {
        "recipe.yaml", "dataset.jsonl", "identity.json", "state.json", "state.lock", "run.lock", "metrics.jsonl",
        "pictures.jsonl", "log.txt", "tb", "checkpoints", "samples", "result.json", "plan.json",
    }  # fmt: skip
    assert run.status().state == "completed"
    with Image.open(run.samples / "0000003-0.png") as picture:
        assert picture.text["prompt"] == "TOK, a dog"
        assert picture.text["step"] == "3"
    header = lora_of(outcome).header
    assert (header["ss_network_dim"], header["ss_network_alpha"], header["ss_steps"]) == ("4", "6", "6")
    assert header["modelspec.trigger_phrase"] == "TOK"
    assert header["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    assert str(home.home) not in str(header)


def test_what_it_measures(train, recipe, home):
    report = train(recipe()).report
    rows = RunFolder(home.run("short")).metrics()
    assert report["steps"] == 6
    assert report["steps_per_second"] > 0
    assert report["final_loss"] == pytest.approx(np.mean([row["loss"] for row in rows]))
    assert report["peak_memory_mib"] > 100
    assert report["lora_mib"] == pytest.approx(
        (home.output / "short" / "short.safetensors").stat().st_size / 2**20, abs=1e-3
    )
    assert report["pictures"] == 3
    assert report["buckets"] == {"64x64": 1, "80x48": 2}
    assert report["lora_relative_error"] < 1e-6
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    bands = {"loss/detail", "loss/structure", "loss/layout"}
    assert all(row.keys() - bands == {"step", "loss", "learning_rate", "gradient_norm"} for row in rows)
    for row in rows:  # one sample a step: its band has the step's loss
        assert [row[band] for band in bands & row.keys()] == pytest.approx([row["loss"]])
    events = EventAccumulator(str(RunFolder(home.run("short")).tensorboard))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert tags >= {"loss", "learning_rate", "gradient_norm", "speed/samples_per_second", "memory/peak_mib"}
    assert tags & bands == bands & {name for row in rows for name in row}
    spent = {tag.removeprefix("seconds/"): events.Scalars(tag)[-1].value for tag in tags if tag.startswith("seconds/")}
    assert spent["training"] == pytest.approx(report["seconds"]["training"], abs=0.01)
    assert spent["saving a checkpoint"] > 0
    assert events.Scalars("speed/samples_per_second")[-1].value == pytest.approx(6 / spent["training"], rel=0.01)
    assert events.Scalars("memory/peak_mib")[-1].value == pytest.approx(report["peak_memory_mib"], rel=0.2)
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([row["loss"] for row in rows])


def test_the_lora_loads_in_the_stock_pipeline_and_changes_the_picture(train, recipe, tiny_flux):
    outcome = train(recipe("train.learning_rate=0.05"))
    stock = FluxPipeline.from_pretrained(tiny_flux, dtype=torch.float32)
    stock.set_progress_bar_config(disable=True)
    text = open_family(str(tiny_flux), device=torch.device("cpu"), dtype=torch.float32).encode_text(["TOK, a dog"])
    shot = Shot("TOK, a dog", 42, 64, 64, 2, 4.0)
    base = np.asarray(draw(stock, shot, text), dtype=int)
    stock.load_lora_weights(outcome.made["lora"], adapter_name="mine")
    assert np.abs(np.asarray(draw(stock, shot, text), dtype=int) - base).max() > 5


def test_a_resumed_run_ends_with_the_same_lora(train, recipe, home, monkeypatch):
    straight = train(recipe())
    monkeypatch.setattr(finish, "thumbnail", lambda _: 1 / 0)  # anything that ends the process after the fit
    broken = recipe("name=broken", "train.sample_every=3")
    with pytest.raises(Exception, match="division by zero"):
        train(broken)
    assert not home.lora("broken").exists()
    monkeypatch.undo()
    resumed = train(broken)
    assert_same_weights(straight, resumed)
    assert resumed.report["final_loss"] == pytest.approx(straight.report["final_loss"])
    assert resumed.report["steps_per_second"] > 0


def test_samples_do_not_change_training(train, recipe):
    without = train(recipe("sample.prompts=[]"))
    with_samples = train(recipe("name=sampled", "train.sample_every=1"))
    assert_same_weights(without, with_samples)


def test_samples_that_fail_are_a_warning(train, recipe, home, monkeypatch):
    def fail(*_):
        raise RuntimeError("no picture today")

    monkeypatch.setattr("lora_lightning.train.callbacks.samples.draw", fail)
    monkeypatch.setattr(finish, "draw", fail)
    outcome = train(recipe("train.sample_every=3"))
    assert "sheet" not in outcome.made
    assert outcome.made["images"] == []
    log = RunFolder(home.run("short")).log_tail()
    assert "samples of step 3 could not be drawn: RuntimeError: no picture today" in log
    assert "the contact sheet could not be drawn" in log


def test_samples_are_drawn_when_asked(train, recipe, home, monkeypatch):
    original, looks = RunFolder.take, []

    def take(run, control):
        looks.append(control)
        if len(looks) == 1:
            run.request("SAMPLE")
        return original(run, control)

    monkeypatch.setattr(RunFolder, "take", take)
    train(recipe())
    assert (home.run("short") / "samples" / "0000001-0.png").is_file()


def test_the_loss_falls(train, recipe, home):
    """On random frozen weights the least possible is about 1.14: to say nothing of the noise."""
    learned = recipe(
        "train.steps=80",
        "train.learning_rate=0.02",
        "train.precision=bf16-mixed",
        "train.checkpoint_every=80",
        "dataset.resolutions=[32]",
        "sample.prompts=[]",
    )
    report = train(learned).report
    losses = np.array([row["loss"] for row in RunFolder(home.run("short")).metrics()])
    assert losses[-30:].mean() < 0.92 * losses[:20].mean()
    assert report["final_loss"] == pytest.approx(losses[-50:].mean())


def test_mixed_precision_writes_bf16_and_gradient_checkpointing_changes_nothing(train, recipe):
    plain = train(recipe("train.precision=bf16-mixed"))
    recomputed = train(recipe("name=recomputed", "train.precision=bf16-mixed", "train.gradient_checkpointing=true"))
    assert {tensor.dtype for tensor in lora_of(plain).tensors.values()} == {torch.bfloat16}
    assert_same_weights(plain, recomputed)


def test_low_vram_trains_on_a_four_bit_base(train, recipe):
    outcome = train(recipe("model.low_vram=true", "train.precision=bf16-mixed", "train.steps=2", "sample.prompts=[]"))
    assert outcome.report["lora_relative_error"] < 0.01


def test_schnell_is_trained_without_guidance(train, recipe, tiny_schnell):
    outcome = train(recipe(f"model.base={tiny_schnell}", "train.steps=2"))
    assert lora_of(outcome).header["modelspec.architecture"] == "flux-1-schnell/lora"


def test_it_never_overwrites_the_lora_of_another_run(train, recipe, home):
    train(recipe())
    kept = home.lora("short").read_bytes()
    train(recipe("train.steps=6"))  # the same run again: it is finished once more
    for child in sorted(home.run("short").rglob("*"), reverse=True):
        child.unlink() if child.is_file() else child.rmdir()
    home.run("short").rmdir()
    with pytest.raises(NameProblem, match="another run made") as caught:
        train(recipe("train.steps=4"))
    assert "name=NEW" in caught.value.hint
    assert len(home.lora("short").read_bytes()) == len(kept)


def test_what_the_user_gets_wrong_is_named_before_any_work(train, recipe, home):
    with pytest.raises(DatasetError, match="names no dataset"):
        train(recipe("name=one", "dataset.name=''"))
    with pytest.raises(DatasetError, match="nothing-here"):
        train(recipe("name=two", "dataset.name=nothing-here"))
    with pytest.raises(ModelError, match="there is no model folder"):
        train(recipe("name=three", "model.base=/nowhere"))
    assert not home.output.exists()


@pytest.mark.parametrize(
    ("prompt", "with_it", "without_it"),
    [
        ("a cat", "TOK, a cat", "a cat"),
        ("TOK, a cat", "TOK, a cat", "a cat"),
        ("a TOK cat", "a TOK cat", "a cat"),
        ("a cat, TOK", "a cat, TOK", "a cat"),
        ("TOKEN of love", "TOK, TOKEN of love", "TOKEN of love"),
        ("TOK", "TOK", ""),
        ("", "TOK", ""),
    ],
)
def test_the_sheet_shows_each_prompt_with_the_trigger_and_without(prompt, with_it, without_it):
    assert shots.with_trigger(prompt, "TOK") == with_it
    assert shots.without_trigger(prompt, "TOK") == without_it
    rows = shots.sheet_rows([Shot(prompt, 7, 64, 64, 2, 3.5)], "TOK")
    assert [(row.label, row.shot.prompt, row.shot.seed) for row in rows] == [
        ("with trigger", with_it, 7),
        ("without trigger", without_it, 7),
    ]
    assert len(shots.sheet_rows([Shot(prompt, 7, 64, 64, 2, 3.5)], "")) == 1
