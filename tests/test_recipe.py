import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lora_lightning import recipe
from lora_lightning.errors import InputError, RecipeError
from lora_lightning.recipe import Recipe


def problems(values, overrides=()):
    with pytest.raises(RecipeError) as caught:
        recipe.parse(values, overrides)
    return {problem.where: problem for problem in caught.value.problems}


def test_every_mistake_is_named_at_once_with_the_nearest_valid_name():
    found = problems(
        {"name": "../x", "train": {"stpes": 5, "learning_rate": -1}, "lora": {"rnak": 4}, "datset": {"name": "a"}},
        ["train.steps=many", "nonsense"],
    )
    assert set(found) == {
        "name",
        "train.stpes",
        "train.learning_rate",
        "train.steps",
        "lora.rnak",
        "datset",
        "nonsense",
    }
    assert "did you mean 'steps'" in found["train.stpes"].hint
    assert "did you mean 'rank'" in found["lora.rnak"].hint
    assert "did you mean 'dataset'" in found["datset"].hint
    assert "../x" in found["name"].message
    assert "-1" in found["train.learning_rate"].message
    assert "'many'" in found["train.steps"].message


def test_what_is_right_is_kept_beside_the_mistakes():
    found = recipe.inspect({"name": "x", "trigger": " bad", "train": {"steps": 7, "batch_size": 0}})
    assert {problem.where for problem in found.problems} == {"trigger", "train.batch_size"}
    assert found.recipe.train.steps == 7
    assert found.recipe.train.batch_size == 1


def test_overrides_are_read_as_yaml_and_win():
    made = recipe.parse(
        {"name": "x", "train": {"steps": 5}},
        ["train.steps=9", "train.learning_rate=1e-4", "sample.prompts=[a cat, a dog]", "model.low_vram=true", "name=y"],
    )
    assert made.name == "y"
    assert made.train.steps == 9
    assert made.train.learning_rate == 1e-4
    assert made.sample.prompts == ("a cat", "a dog")
    assert made.model.low_vram is True


def test_a_rehearsal_keeps_data_and_learning_and_changes_what_a_small_model_cannot_do():
    real = recipe.load("character", ["dataset.name=mine", "lora.rank=20", "train.batch_size=2"])
    rehearsed = recipe.rehearsal(real)
    assert rehearsed.name == "my-character-rehearsal"
    assert (rehearsed.model.base, rehearsed.dataset.resolutions, rehearsed.train.steps) == ("flux-mini", (128,), 200)
    for kept in ("trigger", "lora", "seed"):
        assert getattr(rehearsed, kept) == getattr(real, kept)
    assert rehearsed.dataset.name == "mine"
    assert (rehearsed.train.learning_rate, rehearsed.train.batch_size) == (3e-4, 2)


def test_a_recipe_is_frozen():
    made = recipe.parse({"name": "x"})
    with pytest.raises(ValidationError):
        made.name = "y"


@pytest.mark.parametrize(
    ("text", "said"),
    [("name: [", "not valid YAML at line"), ("- a\n- b\n", "holds no fields"), ("", "holds no fields")],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, said):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        recipe.load(path)


def test_a_file_that_is_not_there_names_the_shipped_ones(tmp_path):
    with pytest.raises(InputError) as caught:
        recipe.load("styel")
    assert "'style'" in caught.value.hint


def test_yaml_tags_run_nothing(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text(f"name: !!python/object/apply:os.system ['touch {tmp_path}/ran']\n")
    with pytest.raises(InputError):
        recipe.load(path)
    assert not (tmp_path / "ran").exists()


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5)))
def test_any_values_give_a_recipe_or_named_problems(values):
    found = recipe.inspect(values)
    assert isinstance(found.recipe, Recipe)
    assert all(problem.message for problem in found.problems)


def test_every_field_has_a_title_and_a_description():
    for section, field in Recipe.model_fields.items():
        model = field.annotation
        if hasattr(model, "model_fields"):
            for name, inner in model.model_fields.items():
                assert inner.title, f"{section}.{name}"
                assert inner.description, f"{section}.{name}"
        else:
            assert field.title, section
            assert field.description, section


def test_an_override_reaches_a_section_within_a_section():
    values = {"name": "mine", "model": {"files": {"ae": "ae.safetensors"}}}
    made = recipe.parse(values, ["model.files.clip_l=clip.safetensors", "model.files.ae=other.safetensors"])
    assert (made.model.files.ae, made.model.files.clip_l) == ("other.safetensors", "clip.safetensors")
    assert values["model"]["files"] == {"ae": "ae.safetensors"}
    found = recipe.inspect(values, ["model.files.clip=x"])
    assert [str(problem) for problem in found.problems] == [
        "model.files.clip: there is no such field (did you mean 'clip_l'?)"
    ]


def test_a_rehearsal_of_any_optimizer_and_stages_is_a_recipe():
    train = {"steps": 2000, "stages": ["500 at 1e-4"], "warmup": 300, "optimizer": "paged_adamw8bit"}
    rehearsed = recipe.rehearsal(recipe.parse({"name": "mine", "train": train})).train
    assert (rehearsed.plan.steps, rehearsed.warmup, rehearsed.optimizer) == (200, 0.0, "adamw")
    train = {"optimizer": "prodigy", "learning_rate": 1.0, "warmup": 0.1}
    rehearsed = recipe.rehearsal(recipe.parse({"name": "mine", "train": train})).train
    assert (rehearsed.optimizer, rehearsed.warmup) == ("prodigy", 0.1)


def test_a_rehearsal_lets_go_of_what_fits_the_real_model_only():
    model = {"base": "dev", "files": {"ae": "ae.safetensors"}, "training_adapter": "somebody/adapter"}
    lora = {"rank": 8, "modules": r".*blocks\.30\..*", "ranks": ["to_q=4"], "init_from": "older"}
    rehearsed = recipe.rehearsal(recipe.parse({"name": "mine", "model": model, "lora": lora}))
    assert rehearsed.model.files.ae == ""
    assert rehearsed.model.training_adapter == "none"
    assert (rehearsed.lora.rank, rehearsed.lora.modules, rehearsed.lora.ranks) == (8, "", ())
    assert rehearsed.lora.init_from == ""
