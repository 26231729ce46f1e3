"""Fill in a recipe; its problems are shown at once, and the draft is never lost."""

import time

import pytest

from lora_lightning import recipe
from lora_lightning.runs.folder import RunFolder
from lora_lightning.ui import cards, drafts


@pytest.fixture
def model_folder(tmp_path):
    """A pipeline of no parts: whole enough for the check before a start; the job itself finds nothing to load."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    return tmp_path / "model"


def start(page):
    return next(button for button in page.button if button.label == "Start training")


def ready(page, model_folder):
    page.text_input(key="train.model.base").set_value(str(model_folder)).run()
    return page


def test_a_preset_fills_the_form_and_keeps_the_dataset(open_page, workspace, dataset):
    page = open_page("train", dataset="photographs")
    page.button(key="preset.character").click().run()
    assert page.number_input(key="train.train.steps.1").value == 1200
    assert (page.number_input(key="train.lora.rank.1").value, page.text_input(key="train.trigger.1").value) == (
        24,
        "MYCHAR",
    )
    assert drafts.load(workspace, "train")["dataset"]["name"] == "photographs"


def test_the_draft_survives_another_page_and_a_reload(open_page, workspace, dataset):
    page = open_page("train")
    page.number_input(key="train.train.steps").set_value(321).run()
    page.switch_page(cards.page("home")).run()
    page.switch_page(cards.page("train")).run()
    assert page.number_input(key="train.train.steps").value == 321
    assert open_page("train").number_input(key="train.train.steps").value == 321
    assert recipe.load(drafts.path(workspace, "train")).train.steps == 321


def test_every_problem_is_a_card_at_once(open_page, dataset, texts):
    page = open_page("train")
    page.text_input(key="train.name").set_value("../x")
    page.text_input(key="train.model.base").set_value("/nowhere/at/all")
    page.text_input(key="train.dataset.resolutions").set_value("100").run()
    said = texts(page)
    assert "LoRA name" in said
    assert "cannot be used" in said
    assert "/nowhere/at/all" in said
    assert "100 is not a multiple of 16" in said
    assert start(page).disabled


def test_a_recipe_without_problems_may_start_and_shows_its_command(open_page, workspace, dataset, model_folder, texts):
    page = ready(open_page("train"), model_folder)
    assert not start(page).disabled
    assert "Ready to start" in texts(page)
    assert f"-m lora_lightning train {workspace.home}/drafts/train.yaml --home {workspace.home}" in texts(page)


def test_a_taken_name_is_a_blocker_that_says_so(open_page, dataset, model_folder, make_run, texts):
    make_run("my-style", "stopped")
    page = ready(open_page("train"), model_folder)
    assert "exists already" in texts(page)
    assert start(page).disabled


def test_starting_leads_to_the_run(open_page, workspace, dataset, model_folder):
    page = ready(open_page("train"), model_folder)
    page.number_input(key="train.train.steps").set_value(1).run()
    start(page).click().run()
    assert page.query_params["id"] == "my-style"
    assert page.title[0].value == "my-style"
    run = workspace.run("my-style")
    assert recipe.load(run / "recipe.yaml").train.steps == 1
    _wait_until_ended(run)


def _wait_until_ended(path):
    """Let the job that was really started come to its end, so that nothing outlives the test."""
    run, deadline = RunFolder(path), time.monotonic() + 60
    while run.status().live and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not run.status().live
