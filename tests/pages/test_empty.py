"""A new workspace: each page says what is missing and offers the one next action."""

import pytest

from lora_lightning.ui import tour
from lora_lightning.ui.cards import PAGES

ACTIONS = {
    "home": "Import pictures",
    "captions": "Import pictures",
    "runs": "Train a LoRA",
    "run": "Show the runs",
    "tensorboard": "Train a LoRA",
    "evaluate": "Train a LoRA",
    "publish": "Train a LoRA",
}


@pytest.mark.parametrize(("name", "action"), ACTIONS.items())
def test_an_empty_page_holds_one_next_action(open_page, name, action):
    main = [button.label for button in open_page(name).button if button.proto.type == "primary"]
    assert main == [action]


def test_datasets_shows_the_import(open_page, texts):
    page = open_page("datasets")
    assert "There is no dataset yet" in texts(page)
    assert page.button[0].label == "Import"
    assert page.button[0].disabled


def test_train_says_that_a_dataset_is_needed(open_page, texts):
    page = open_page("train")
    assert "no dataset is chosen" in texts(page)
    assert next(button for button in page.button if button.label == "Start training").disabled


def test_generate_and_settings_open(open_page, texts):
    assert "There is no finished LoRA yet" in texts(open_page("generate"))
    assert "Not logged in" in texts(open_page("settings")) or "Logged in" in texts(open_page("settings"))


def test_every_page_is_in_the_navigation(open_page):
    from lora_lightning.ui.menu import SECTIONS

    listed = {name for entries in SECTIONS.values() for name, _, _ in entries}
    assert listed == {path.stem for path in PAGES.glob("*.py")}


def test_the_tour_goes_on_and_ends(open_page, texts):
    page = open_page("home")
    page.button(key="home.tour").click().run()
    for stop in tour.STOPS[:-1]:
        assert stop.text in texts(page)
        page.button(key="tour.next").click().run()
    assert tour.STOPS[-1].text in texts(page)
    page.button(key="tour.back").click().run()
    page.button(key="tour.next").click().run()
    page.button(key="tour.done").click().run()
    assert tour.PLACE not in page.session_state


def test_nothing_is_written_by_looking(open_page, workspace):
    open_page("home")
    open_page("runs")
    assert not workspace.home.exists()
