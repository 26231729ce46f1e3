"""Generate with a LoRA, look over and publish one, and the machine's own pages."""

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lora_lightning.runs.files import write_json
from lora_lightning.ui import results


@pytest.fixture
def lora(make_run, finish):
    return finish(make_run("mine", "completed"), "mine")


def test_home_shows_what_works_and_what_is_finished(open_page, dataset, lora, make_run, texts):
    make_run("next", "running", live=True, phase="caching", done=3, total=9)
    page = open_page("home")
    assert page.get("progress")[0].proto.text == "Caching 3 of 9"
    assert "**mine**" in texts(page)
    assert "Finished LoRAs" in texts(page)


def test_home_offers_captions_when_there_are_only_pictures(open_page, dataset, texts):
    assert "Caption photographs" in texts(open_page("home"))


def test_insert_adds_the_lora_to_every_prompt(open_page, lora):
    page = open_page("generate", lora="mine")
    page.text_area(key="generate.generate.prompts").set_value("a fox\na hare")
    page.number_input(key="generate_weight").set_value(0.8).run()
    next(button for button in page.button if button.label == "Insert").click().run()
    assert page.text_area(key="generate.generate.prompts").value == "a fox <lora:mine:0.8>\na hare <lora:mine:0.8>"


def test_the_draw_button_counts_the_pictures(open_page, lora, texts):
    page = open_page("generate")
    assert "Draw 0 pictures" in texts(page)
    page.text_area(key="generate.generate.prompts").set_value("a fox\na hare")
    page.number_input(key="generate.generate.images_per_prompt").set_value(3).run()
    assert "Draw 6 pictures" in texts(page)


def test_drawn_pictures_are_shown_with_their_recipe(open_page, make_run, texts):
    run = make_run("pictures", "completed", verb="generate")
    facts = PngInfo()
    facts.add_itxt("prompt", "a <tall> lighthouse")
    facts.add_itxt("seed", "43")
    run.samples.mkdir()
    Image.new("RGB", (64, 64), "teal").save(run.samples / "1.png", pnginfo=facts)
    page = open_page("generate")
    bodies = "".join(html.proto.body for html in page.get("html"))
    assert f"/files/runs/{run.name}/samples/1.png" in bodies
    assert "a &lt;tall&gt; lighthouse, seed 43" in bodies
    assert "guidance: 3.5" in texts(page)


def test_an_evaluation_shows_its_sheet_and_its_measures(open_page, make_run, lora):
    run = make_run("mine", "completed", verb="evaluate")
    Image.new("RGB", (64, 64), "teal").save(run.path / "sheet.png")
    measures = [{"name": "style", "value": 0.5}]
    made = {"made": {"sheet": str(run.path / "sheet.png")}, "report": {"measures": measures}}
    write_json(run.path / "result.json", made)
    page = open_page("evaluate", lora="mine")
    assert "/files/runs/mine.evaluate/sheet.png" in "".join(html.proto.body for html in page.get("html"))
    assert page.dataframe[0].value.to_dict("records") == measures


def test_publish_shows_the_card_and_wants_a_repository(open_page, lora, texts):
    page = open_page("publish", lora="mine")
    assert "Trigger: MYSTYLE" in texts(page)
    assert "license: other" not in texts(page)
    assert page.toggle(key="publish.publish.private").value is True
    push = next(button for button in page.button if button.label == "Push to the Hub")
    assert push.disabled
    page.text_input(key="publish.publish.repo").set_value("me/mine").run()
    assert not next(button for button in page.button if button.label == "Push to the Hub").disabled


def test_making_it_public_is_said_before_it_is_done(open_page, lora, texts):
    page = open_page("publish", lora="mine")
    page.toggle(key="publish.publish.private").set_value(False).run()
    assert "The repository will be public" in texts(page)
    assert "Push to the Hub, public" in texts(page)


def test_a_push_shows_its_link_and_a_failed_one_its_reason(open_page, lora, make_run, texts):
    done = make_run("mine", "completed", verb="publish")
    write_json(done.path / "result.json", {"made": {}, "report": {"url": "https://huggingface.co/me/mine"}})
    make_run("mine", "failed", verb="publish", message="the token may not write", hint="Log in with one that may.")
    said = texts(open_page("publish", lora="mine"))
    assert "https://huggingface.co/me/mine" in said
    assert "the token may not write" in said


def test_a_push_at_work_is_shown_live_and_cannot_be_started_twice(open_page, lora, make_run):
    make_run("mine", "running", live=True, verb="publish", phase="uploading", done=1, total=3)
    page = open_page("publish", lora="mine")
    assert page.get("progress")[0].proto.text == "Uploading 1 of 3"
    page.text_input(key="publish.publish.repo").set_value("me/mine").run()
    assert next(button for button in page.button if button.label == "Push to the Hub").disabled


def test_a_card_is_shown_without_its_front_matter_and_pictures():
    assert results.card_text("---\na: 1\n---\n# Mine\n![x](y.png)\ntext") == "# Mine\ntext"


def test_settings_names_the_workspace_and_the_versions(open_page, workspace, texts):
    page = open_page("settings")
    assert str(workspace.home) in texts(page)
    assert {"torch", "lightning", "streamlit"} <= set(page.dataframe[1].value["Package"])


def test_the_token_is_never_shown(open_page, monkeypatch, texts):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    said = texts(open_page("settings"))
    assert "Logged in" in said
    assert "secret" not in said


def test_tensorboard_is_embedded_when_there_is_something_to_see(open_page, workspace):
    events = workspace.runs / "mine" / "tb" / "events.out.tfevents.1"
    events.parent.mkdir(parents=True)
    events.write_bytes(b"")
    page = open_page("tensorboard")
    assert not page.button
    assert page.get("iframe")[0].proto.src.startswith("/tb/?darkMode=")
