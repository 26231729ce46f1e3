import json
import re

import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline, FluxPipeline
from PIL import Image

from lora_lightning import __version__, recipe
from lora_lightning.errors import InputError, ModelError, RecipeError, Stopped
from lora_lightning.generate import job
from lora_lightning.generate.prompt import parse
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.job import perform, reserve

SIZE = {"width": 64, "height": 48, "steps": 3, "guidance": 4.0, "seed": 11}


@pytest.fixture
def make_recipe(tiny_flux):
    def make(prompts, base=tiny_flux, precision="32-true", **changes):
        return recipe.parse(
            {
                "name": "pictures",
                "model": {"base": str(base)},
                "train": {"precision": precision},
                "generate": SIZE | {"prompts": prompts} | changes,
            }
        )

    return make


@pytest.fixture
def generate(workspace):
    """Run the job in its real frame, in this process; with `run`, go on with that one."""

    def start(made, watch=None, run=None):
        folder = run or reserve(workspace, "generate", made.name, made.to_yaml())

        def work(reporter):
            if watch:
                watch(reporter)
            return job.run(made, workspace, reporter)

        return perform(workspace, folder, work, needs_device=False)

    return start


def stock(folder, prompt, seed, dtype=torch.float32, lora=None, **arguments):
    """What diffusers draws, called as anyone would call it."""
    pipeline = FluxPipeline.from_pretrained(folder, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    if lora:
        pipeline.load_lora_weights(str(lora), adapter_name="x")
        pipeline.set_adapters(["x"], [0.6])
    settings = {"width": 64, "height": 48, "num_inference_steps": 3, "guidance_scale": 4.0, "max_sequence_length": 32}
    generator = torch.Generator("cpu").manual_seed(seed)
    return np.asarray(pipeline(prompt, generator=generator, **settings | arguments).images[0])


def pixels(path):
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_pictures_are_the_stock_pipelines_bit_for_bit(generate, make_recipe, tiny_flux, precision):
    dtype = torch.float32 if precision == "32-true" else torch.bfloat16
    outcome = generate(make_recipe(["a fox in the snow", "a city"], precision=precision, images_per_prompt=2))
    expected = [(prompt, seed) for prompt in ("a fox in the snow", "a city") for seed in (11, 12)]
    assert [path.rsplit("/", 1)[1] for path in outcome.made["images"]] == [f"000{n}.png" for n in range(1, 5)]
    for path, (prompt, seed) in zip(outcome.made["images"], expected, strict=True):
        assert (pixels(path) == stock(tiny_flux, prompt, seed, dtype)).all()


def test_schnell_too_with_its_texts_read_on_the_cpu(generate, make_recipe, tiny_schnell, monkeypatch):
    monkeypatch.setattr("lora_lightning.models.reading.has_room", lambda *_: False)
    outcome = generate(make_recipe(["a fox"], base=tiny_schnell))
    assert (pixels(outcome.made["images"][0]) == stock(tiny_schnell, "a fox", 11)).all()


def test_a_lora_acts_in_the_prompts_that_name_it_and_in_no_other(generate, make_recipe, tiny_flux, make_lora):
    path = make_lora("ink")
    named, plain, zero = generate(make_recipe(["a fox <lora:ink:0.6>", "a fox", "a fox <lora:ink:0>"])).made["images"]
    assert (pixels(named) == stock(tiny_flux, "a fox", 11, lora=path)).all()
    base = stock(tiny_flux, "a fox", 11)
    assert (pixels(plain) == base).all()
    assert (pixels(zero) == base).all()
    assert (pixels(named) != base).any()


def test_loras_of_the_recipe_act_in_every_prompt_and_add_to_those_of_the_prompt(generate, make_recipe, make_lora):
    make_lora("ink")
    always = [{"name": "ink", "weight": 0.5}]
    added, whole = generate(make_recipe(["a fox <lora:ink:0.25>", "a fox"], loras=always)).made["images"]
    alone = generate(make_recipe(["a fox <lora:ink:0.75>", "a fox <lora:ink:0.5>"])).made["images"]
    assert (pixels(added) == pixels(alone[0])).all()
    assert (pixels(whole) == pixels(alone[1])).all()


def test_a_picture_carries_its_recipe(generate, make_recipe, make_lora, tiny_flux, tmp_path):
    path = make_lora("ink")
    outcome = generate(make_recipe(["ein Füchslein, 狐 <lora:ink:0.6>"]))
    with Image.open(outcome.made["images"][0]) as picture:
        picture.load()
        says = dict(picture.info)
    expected = {"prompt": "ein Füchslein, 狐", "seed": "11", "width": "64", "height": "48", "steps": "3",
                "guidance": "4.0", "model": tiny_flux.name, "software": f"LoRA Lightning {__version__}"}  # fmt: skip
    assert expected.items() <= says.items()
    (lora,) = json.loads(says["loras"])
    assert (lora["name"], lora["weight"]) == ("ink", 0.6)
    assert lora["sha256"] == outcome.report["loras"]["ink"]
    assert str(tmp_path) not in json.dumps(says)

    prompt, pairs = says["parameters"].rsplit("\n", 1)
    assert parse(prompt) == parse("ein Füchslein, 狐 <lora:ink:0.6>")
    found = dict(re.findall(r'([\w ]+): ("[^"]*"|[^,]*)(?:, |$)', pairs))
    assert found["Steps"] == "3"
    assert found["Seed"] == "11"
    assert found["Size"] == "64x48"
    assert found["Distilled CFG Scale"] == "4"
    assert re.fullmatch(r'"ink: [0-9a-f]{12}"', found["Lora hashes"])
    assert path.exists()


def test_a_picture_can_be_drawn_again_from_what_it_says(generate, make_recipe, make_lora):
    make_lora("ink")
    first = generate(make_recipe(["a fox <lora:ink:0.6>"])).made["images"][0]
    with Image.open(first) as picture:
        picture.load()
        says = dict(picture.info)
    tags = " ".join(f"<lora:{lora['name']}:{lora['weight']}>" for lora in json.loads(says["loras"]))
    numbers = {name: float(says[name]) if name == "guidance" else int(says[name]) for name in SIZE}
    again = generate(make_recipe([f"{says['prompt']} {tags}"], **numbers)).made["images"][0]
    assert (pixels(first) == pixels(again)).all()


def test_the_sheet_has_a_row_for_each_prompt_and_a_column_for_each_seed(generate, make_recipe):
    small = generate(make_recipe(["a"])).made["sheet"]
    large = generate(make_recipe(["a", "b"], images_per_prompt=3)).made["sheet"]
    with Image.open(small) as one, Image.open(large) as six:
        assert six.width > 2 * one.width - 260
        assert six.height > 1.7 * one.height


def test_all_mistakes_in_prompts_are_named_at_once(generate, make_recipe, make_lora):
    make_lora("ink-style")
    with pytest.raises(RecipeError) as caught:
        generate(make_recipe(["a fox", "a <lora:ink-stile>", "a <lora:ink-style:9>", "a <lora:"]))
    problems = caught.value.problems
    assert [problem.where for problem in problems] == [f"generate.prompts.{n}" for n in (2, 3, 4)]
    assert "'ink-style'" in problems[0].hint


def test_a_recipe_without_prompts_is_refused(generate, make_recipe):
    with pytest.raises(RecipeError, match="no prompt"):
        generate(make_recipe([]))


def test_an_absent_base_is_named(generate, make_recipe, tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        generate(make_recipe(["a fox"], base=tmp_path / "nowhere"))


def test_a_stop_is_heeded_within_a_picture_and_the_rest_is_drawn_later(generate, make_recipe, workspace):
    made = make_recipe(["a", "b", "c"])
    calls = []

    def stop_in_the_second_picture(reporter):
        check = reporter.check_stop

        def checked():
            if reporter.run.read_state().get("phase") == "drawing":
                calls.append(1)
                if len(calls) == 6:  # once before each picture and once after each of its three steps
                    reporter.run.request("STOP")
            check()

        reporter.check_stop = checked

    with pytest.raises(Stopped):
        generate(made, stop_in_the_second_picture)
    run = RunFolder(workspace.run("pictures.generate"))
    assert [path.name for path in run.samples.iterdir()] == ["0001.png"]
    first = (run.samples / "0001.png").stat().st_mtime_ns

    outcome = generate(made, run=run)

    assert (run.samples / "0001.png").stat().st_mtime_ns == first
    assert [pixels(path).shape for path in outcome.made["images"]] == [(48, 64, 3)] * 3
    whole = generate(made)
    for here, there in zip(outcome.made["images"], whole.made["images"], strict=True):
        assert (pixels(here) == pixels(there)).all()


def test_a_reference_is_edited_as_the_stock_pipeline_does_and_gives_the_shape(
    generate, make_recipe, tiny_kontext, tmp_path
):
    before = Image.effect_noise((96, 48), 90).convert("RGB")
    before.save(tmp_path / "before.png")
    outcome = generate(make_recipe(["bluer"], base=tiny_kontext, reference=str(tmp_path / "before.png")))
    pipeline = FluxKontextPipeline.from_pretrained(tiny_kontext, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    wanted = pipeline(
        image=before.resize((64, 32), Image.Resampling.LANCZOS),
        prompt="bluer",
        width=64,
        height=32,
        max_area=64 * 32,
        _auto_resize=False,
        num_inference_steps=3,
        guidance_scale=4.0,
        max_sequence_length=32,
        generator=torch.Generator().manual_seed(11),
    ).images[0]
    with Image.open(outcome.made["images"][0]) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(wanted))
        assert picture.text["reference"] == "before.png"


def test_a_reference_that_is_nowhere_or_of_no_use_is_refused(generate, make_recipe, photos):
    with pytest.raises(RecipeError) as caught:
        generate(make_recipe(["bluer"], reference="nowhere.png"))
    assert [problem.where for problem in caught.value.problems] == ["generate.reference"]
    with pytest.raises(InputError, match="edits no picture"):
        generate(make_recipe(["bluer"], reference=str(photos[0]), images_per_prompt=2))
