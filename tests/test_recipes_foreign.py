"""Recipes of other trainers: what is carried over trains as it did there, and nothing is passed over in silence."""

import json
import re
from contextlib import suppress

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lightning import recipe
from lora_lightning.__main__ import main
from lora_lightning.errors import InputError
from lora_lightning.foreign import opening
from lora_lightning.foreign.formats import ai_toolkit, kohya
from lora_lightning.foreign.rules import Setting, translate
from lora_lightning.models.config import LoraConfig

AI_TOOLKIT = """
job: extension
config:
  name: "knight lora v1"
  process:
    - type: sd_trainer
      training_folder: output
      device: cuda:0
      trigger_word: kn1ght
      network: {type: lora, linear: 16, linear_alpha: 1}
      save: {dtype: float16, save_every: 250, max_step_saves_to_keep: 4, push_to_hub: false}
      datasets:
        - folder_path: /data/knights
          caption_ext: txt
          caption_dropout_rate: 0.05
          shuffle_tokens: false
          cache_latents_to_disk: true
          resolution: [512, 768, 1024]
        - {folder_path: /data/more knights, num_repeats: 4, resolution: [512]}
        - {folder_path: /data/people, num_repeats: 2, is_reg: true}
        - {folder_path: /data/horses}
      train:
        batch_size: 2
        steps: 1500
        gradient_accumulation_steps: 3
        train_unet: true
        train_text_encoder: true
        gradient_checkpointing: true
        noise_scheduler: flowmatch
        optimizer: adamw8bit
        optimizer_params: {weight_decay: 0.001}
        lr: 2e-4
        ema_config: {use_ema: true, ema_decay: 0.99}
        dtype: bf16
        timestep_type: linear
        mystery: 7
      model: {name_or_path: black-forest-labs/FLUX.1-dev, is_flux: true, quantize: true}
      sample:
        sampler: flowmatch
        sample_every: 200
        width: 1024
        height: 768
        prompts: ["[trigger] on a horse", "a city"]
        neg: ""
        seed: 7
        walk_seed: true
        guidance_scale: 3.5
        sample_steps: 28
meta: {name: "[name]"}
"""
KOHYA = """
[model_arguments]
pretrained_model_name_or_path = "/models/flux1-dev.safetensors"
ae = "/models/ae.safetensors"
clip_l = "/models/clip_l.safetensors"
t5xxl = "/models/t5xxl_fp16.safetensors"
[network]
network_module = "networks.lora_flux"
network_dim = 32
network_alpha = 8
network_args = ["train_blocks=single"]
[training]
output_name = "knight"
learning_rate = 1e-4
optimizer_type = "adamw8bit"
optimizer_args = ["weight_decay=0.05", "betas=0.9,0.99", "eps=1e-6"]
lr_scheduler = "constant_with_warmup"
lr_warmup_steps = 50
max_train_steps = 900
seed = 5
timestep_sampling = "shift"
discrete_flow_shift = 3.1582
sigmoid_scale = 1.5
model_prediction_type = "raw"
guidance_scale = 1.0
prior_loss_weight = 0.7
loss_type = "huber"
huber_c = 0.2
huber_schedule = "exponential"
mixed_precision = "bf16"
fp8_base = true
dataset_config = "sets.toml"
"""
SETS = """
[general]
shuffle_caption = true
keep_tokens = 2
[[datasets]]
resolution = "1024,1024"
batch_size = 4
  [[datasets.subsets]]
  image_dir = "/data/knights"
  num_repeats = 10
[[datasets]]
resolution = 512
  [[datasets.subsets]]
  image_dir = "/data/others"
  [[datasets.subsets]]
  image_dir = "/data/people"
  is_reg = true
"""


@pytest.fixture
def write(tmp_path):
    def do(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return do


def left(imported):
    return {row.setting.key: row.fate.note for row in imported.of("left")}


def test_a_recipe_of_ai_toolkit_keeps_what_it_learns_and_how_fast(write):
    found = opening.open_file(write("knight.yaml", AI_TOOLKIT))
    made = found.recipe
    assert (made.name, made.trigger, made.model.base, made.dataset.name) == (
        "knight-lora-v1",
        "kn1ght",
        "dev",
        "knights",
    )
    # linear_alpha is ignored there: the update of rank 16 is not scaled down to a sixteenth.
    assert (made.lora.rank, made.lora.scale, made.lora.targets) == (16, 1.0, "modulation")
    assert made.train.learning_rate * made.lora.scale == 2e-4
    train = made.train
    assert (train.steps, train.batch_size, train.accumulate, train.optimizer) == (1500, 2, 3, "adamw8bit")
    assert (train.weight_decay, train.ema_decay, train.timesteps, train.shift) == (0.001, 0.99, "uniform", "none")
    assert made.dataset.resolutions == (512, 768, 1024)
    assert made.dataset.caption_dropout == 0.05
    assert [str(each) for each in made.dataset.chosen] == ["knights", "more-knights x 4", "horses"]
    assert str(made.dataset.kept) == "people x 2"
    assert made.sample.prompts == ("[trigger] on a horse", "a city")
    assert (made.sample.width, made.sample.height, made.sample.steps, made.sample.seed) == (1024, 768, 28, 7)
    told = left(found)
    assert "alpha = rank" in told["network.linear_alpha"]
    assert "text encoders" in told["train.train_text_encoder"]
    assert told["train.mystery"] == "not known here"
    assert "low_vram" in told["model.quantize"]
    assert found.problems == []


def test_a_recipe_of_kohya_keeps_rate_times_alpha_by_rank_and_reads_its_datasets(write):
    write("sets.toml", SETS)
    found = opening.open_file(write("knight.toml", KOHYA))
    made = found.recipe
    assert made.train.learning_rate * made.lora.scale == pytest.approx(1e-4 * 8 / 32)
    assert "2.5e-05" in found.rate
    assert made.model.files.model_dump() == {
        "transformer": "/models/flux1-dev.safetensors",
        "ae": "/models/ae.safetensors",
        "clip_l": "/models/clip_l.safetensors",
        "t5xxl": "/models/t5xxl_fp16.safetensors",
    }
    train = made.train
    assert (train.timesteps, train.logit_std, train.shift) == ("sigmoid", 1.5, 3.1582)
    assert (train.betas, train.weight_decay, train.warmup) == ((0.9, 0.99), 0.05, 50)
    assert (train.loss, train.huber_delta, train.huber_schedule) == ("huber", 0.2, "exponential")
    assert (train.steps, train.batch_size, made.seed) == (900, 4, 5)
    data = made.dataset
    assert (data.resolutions, data.repeats, data.shuffle_tags, data.keep_tags) == ((512, 1024), 10, 8, 2)
    told = left(found)
    assert [str(each) for each in data.chosen] == ["knights x 10", "others"]
    assert (str(data.kept), data.regularisation_weight) == ("people at 0.7", 0.7)
    assert "training.optimizer_args.eps" in told
    assert found.problems == []


@pytest.mark.parametrize(
    ("text", "timesteps", "shift", "mean"),
    [
        ("", "uniform", 3.0, 0.0),
        ('timestep_sampling = "uniform"', "uniform", "none", 0.0),
        ('timestep_sampling = "sigmoid"', "sigmoid", "none", 0.0),
        ('timestep_sampling = "flux_shift"', "sigmoid", "resolution", 0.0),
        # There the schedule begins with noise at u = 0: a mean below 0 is much noise.
        ('weighting_scheme = "logit_normal"\nlogit_mean = -1.0', "logit_normal", 3.0, 1.0),
    ],
)
def test_kohyas_samplers_are_those_that_it_would_use(write, text, timesteps, shift, mean):
    made = opening.open_file(write("k.toml", f'network_module = "networks.lora_flux"\n{text}')).recipe
    assert (made.train.timesteps, made.train.shift, made.train.logit_mean) == (timesteps, shift, mean)


def test_what_a_file_leaves_out_is_the_other_tools_default_not_ours(write):
    made = opening.open_file(write("k.toml", 'network_module = "networks.lora_flux"')).recipe
    assert (made.lora.rank, made.lora.alpha, made.train.learning_rate, made.train.steps) == (4, 1.0, 2e-6, 1600)
    assert (made.train.optimizer, made.train.weight_decay) == ("adamw", 0.01)
    told = left(opening.open_file(write("l.toml", 'network_module = "networks.lora_flux"')))
    assert "guidance 1" in told["guidance_scale"]
    assert "velocity" in told["model_prediction_type"]
    made = opening.open_file(write("a.yaml", "config: {process: [{type: sd_trainer}]}")).recipe
    assert (made.lora.rank, made.lora.scale, made.train.learning_rate, made.train.steps) == (4, 1.0, 1e-6, 1000)


def test_blocks_of_kohya_become_modules_of_theirs_alone(write):
    modules = LoraConfig(modules=opening.open_file(write("k.toml", KOHYA)).recipe.lora.modules).modules
    singles = ["attn.to_q", "proj_mlp", "proj_out", "norm.linear"]
    assert all(re.fullmatch(modules, f"single_transformer_blocks.7.{name}") for name in singles)
    assert not re.fullmatch(modules, "transformer_blocks.7.attn.to_q")
    assert not re.fullmatch(modules, "single_transformer_blocks.7.attn.norm_q")


def test_a_value_that_no_recipe_may_hold_is_named_and_left_out(write):
    found = opening.open_file(write("k.toml", 'network_dim = 100000\nnetwork_module = "networks.lora_flux"'))
    assert [problem.where for problem in found.problems] == ["lora.rank"]
    assert recipe.parse(yaml.safe_load(found.to_yaml())).lora.rank == 16


KEYS = st.sampled_from([*sorted({key.split(".")[-1] for key in (*ai_toolkit.RULES, *kohya.RULES)}), "other"])
LEAVES = st.none() | st.booleans() | st.integers(-3, 3000) | st.floats(-1, 1) | st.text(max_size=6)
TABLES = st.recursive(LEAVES | st.lists(LEAVES, max_size=2), lambda inner: st.dictionaries(KEYS, inner), max_leaves=8)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(sorted(kohya.RULES)), LEAVES), st.dictionaries(KEYS, TABLES))
def test_every_setting_has_a_row_and_nothing_breaks_whatever_the_values(flat, nested):
    given_ones = [Setting(name, name, value) for name, value in flat.items()]
    done = translate("x", given_ones, kohya.RULES, kohya.DEFAULTS)
    assert [row.setting for row in done.rows][: len(given_ones)] == given_ones
    assert all(row.fate.note for row in done.rows if row.fate.kind == "left")
    recipe.inspect({"name": "x"} | dict(done.values))
    again = translate("x", list(ai_toolkit.flatten(nested)), ai_toolkit.RULES, ai_toolkit.DEFAULTS)
    recipe.inspect({"name": "x"} | dict(again.values))


def test_every_rule_leads_to_fields_that_there_are():
    sections = {name: field.annotation for name, field in recipe.Recipe.model_fields.items()}
    known = {"network.linear": 4} | kohya.DEFAULTS | {"loss_type": "huber", "shuffle_caption": True}
    reached = set()
    for module in (ai_toolkit, kohya):
        for rule in module.RULES.values():
            for value in (1, "lora", "l2", "networks.lora_flux", "adamw", "constant", "bf16", "sigma", "single", True):
                with suppress(TypeError, ValueError, LookupError, AttributeError):
                    reached |= set(rule(value, known).fields)
    assert len(reached) > 40
    for target in reached:
        section, _, name = target.partition(".")
        assert section in sections, target
        assert not name or name in sections[section].model_fields, target


def test_the_command_writes_a_recipe_that_check_reads_and_overwrites_nothing(write, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = write("knight.yaml", AI_TOOLKIT)
    assert main(["import-recipe", str(source), "train.steps=20", "--json"]) == 0
    shown = capsys.readouterr()
    done = json.loads(shown.out.splitlines()[-1])
    assert "train.mystery = 7  (not known here)" in shown.err
    made = recipe.load(done["made"]["recipe"])
    assert done["made"]["recipe"] == str(tmp_path / "knight-lora-v1.yaml")
    assert (made.train.steps, made.lora.rank) == (20, 16)
    rows = {row["setting"]: row for row in done["report"]["taken"]}
    assert rows["train.lr"]["fields"] == {"train.learning_rate": 2e-4}
    assert main(["import-recipe", str(source)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_recipe_of_another_trainer_is_not_mistaken_for_ours(write):
    with pytest.raises(InputError) as caught:
        recipe.load(write("knight.yaml", AI_TOOLKIT))
    assert "import-recipe" in caught.value.hint
    with pytest.raises(InputError) as caught:
        recipe.load(write("knight.toml", KOHYA))
    assert "import-recipe" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "text"), [("a.yaml", "name: x"), ("a.toml", "x = 1"), ("a.toml", "["), ("a.bin", "\0")]
)
def test_what_is_no_recipe_of_theirs_is_refused(write, name, text):
    with pytest.raises(InputError, match="is no recipe of ai_toolkit or kohya"):
        opening.open_file(write(name, text))
