"""Every field of the recipe has a widget, and what the widgets hold is a recipe again."""

from typing import Literal

import pytest
from pydantic.fields import FieldInfo
from streamlit.testing.v1 import AppTest

from lora_lightning import recipe
from lora_lightning.generate.config import LoraChoice
from lora_lightning.ui import fields, form


def drawn_form():
    import streamlit as st

    from lora_lightning.recipe import Recipe
    from lora_lightning.ui import form

    fields = form.paths("")
    for name, info in Recipe.model_fields.items():
        if hasattr(info.annotation, "model_fields"):
            fields += form.paths(name)
    st.session_state["values"] = form.draw("all", fields, st.session_state["given"])


def draw(given):
    app = AppTest.from_function(drawn_form, default_timeout=20)
    app.session_state["given"] = given
    app.run()
    assert not app.exception
    return app


@pytest.mark.parametrize("name", ["character", "style", "product"])
def test_a_shipped_recipe_comes_back_as_it_went_in(name):
    wanted = recipe.load(name)
    assert recipe.parse(draw(wanted.model_dump(mode="json")).session_state["values"]) == wanted


def test_what_is_set_in_widgets_arrives_in_the_recipe():
    app = draw({"name": "x"})
    app.number_input(key="all.train.steps").set_value(77)
    app.number_input(key="all.train.learning_rate").set_value(2e-5)
    app.text_input(key="all.lora.alpha").set_value("8")
    app.selectbox(key="all.model.low_vram").set_value(True)
    app.text_input(key="all.dataset.resolutions").set_value("256, 512")
    app.text_area(key="all.sample.prompts").set_value("a fox\n\n a hare ")
    app.selectbox(key="all.train.gradient_checkpointing").set_value(False)
    app.run()
    made = recipe.parse(app.session_state["values"])
    assert (made.train.steps, made.train.learning_rate, made.lora.alpha) == (77, 2e-5, 8.0)
    assert made.model.low_vram is True
    assert made.dataset.resolutions == (256, 512)
    assert made.sample.prompts == ("a fox", "a hare")
    assert made.train.gradient_checkpointing is False


def test_a_choice_or_a_number_takes_both():
    app = draw({"name": "x", "train": {"shift": 2.5}})
    assert recipe.parse(app.session_state["values"]).train.shift == 2.5
    assert recipe.parse(draw({"name": "x"}).session_state["values"]).train.shift == "resolution"


def test_text_where_numbers_belong_is_a_problem_of_its_field():
    app = draw({"name": "x"})
    app.text_input(key="all.dataset.resolutions").set_value("big").run()
    found = recipe.inspect(app.session_state["values"])
    assert found.problems[0].where.startswith("dataset.resolutions")


def test_values_that_are_out_of_bounds_show_the_default():
    values = draw({"name": "x", "train": {"steps": -5, "precision": "int3"}}).session_state["values"]
    assert (values["train"]["steps"], values["train"]["precision"]) == (1000, "bf16-mixed")


def test_the_help_and_the_bounds_are_those_of_the_schema():
    rank = draw({"name": "x"}).number_input(key="all.lora.rank")
    assert (rank.label, rank.min, rank.max, rank.help) == ("Rank", 1, 256, "Size of the adapter; 8 to 32 is usual.")


def test_a_field_of_any_other_type_is_text_in_yaml():
    loras = FieldInfo.from_annotated_attribute(tuple[LoraChoice, ...], ())
    shown = fields.shown(loras, (LoraChoice(name="mine", weight=0.5),))
    assert shown == "[{name: mine, weight: 0.5}]"
    assert fields.read(loras, shown) == [{"name": "mine", "weight": 0.5}]
    assert fields.read(loras, "[") == "["
    assert fields.read(loras, "") == ()


def test_a_section_that_reads_itself_is_a_line():
    app = draw({"name": "x", "train": {"stages": ["500 at 2e-4"]}})
    assert app.text_area(key="all.train.stages").value == "500 at 0.0002"
    app.text_area(key="all.train.stages").set_value("500 at 2e-4\n300 at 1e-4").run()
    stages = recipe.parse(app.session_state["values"]).train.stages
    assert [(stage.steps, stage.learning_rate) for stage in stages] == [(500, 2e-4), (300, 1e-4)]


def test_sections_in_sections_are_part_of_the_form():
    assert "model.files.transformer" in form.paths("model")
    app = draw({"name": "x"})
    app.text_input(key="all.model.files.ae").set_value("ae.safetensors").run()
    assert recipe.inspect(app.session_state["values"]).recipe.model.files.ae == "ae.safetensors"


def test_a_field_that_nothing_reads_is_not_drawn_and_cannot_be_wrong():
    app = draw({"name": "x", "train": {"timesteps": "mode", "mode_scale": 0.5}})
    assert app.number_input(key="all.train.mode_scale").value == 0.5
    app.selectbox(key="all.train.timesteps").set_value("uniform").run()
    assert not [widget for widget in app.number_input if widget.key in ("all.train.mode_scale", "all.train.logit_mean")]
    made = recipe.parse(app.session_state["values"])
    assert (made.train.timesteps, made.train.mode_scale) == ("uniform", 1.29)


def test_titles_are_those_of_the_schema():
    assert [form.title(path) for path in ("train.steps", "name", "--home")] == ["Steps", "LoRA name", "--home"]


@pytest.mark.parametrize(
    ("annotation", "options", "held", "value"),
    [
        (int | Literal["auto"], ["auto"], "4", 4),
        (Literal["auto"] | bool | float, ["auto", True, False], "0.5", 0.5),
        (Literal["auto"] | bool, ["auto", True, False], False, False),
        (Literal["auto"] | int, ["auto"], "auto", "auto"),
        (Literal["auto"] | int, ["auto"], "many", "many"),
    ],
)
def test_a_union_of_words_and_numbers_is_a_choice_that_takes_a_number(annotation, options, held, value):
    info = FieldInfo(annotation=annotation)
    assert fields.kind_of(annotation) == "choice"
    assert fields.choices(annotation) == options
    assert fields.read(info, held) == value
    assert type(fields.read(info, held)) is type(value)
    assert fields.shown(info, value) == held


def test_the_number_of_devices_is_chosen_or_typed():
    app = draw({"name": "x", "train": {"devices": 2}})
    box = app.selectbox(key="all.train.devices")
    assert box.value == "2"
    assert "type a number" in box.help
    assert recipe.parse(app.session_state["values"]).train.devices == 2
    app.selectbox(key="all.train.devices").set_value("auto").run()
    assert recipe.parse(app.session_state["values"]).train.devices == "auto"
