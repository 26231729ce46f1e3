"""Generate with a LoRA, look over and publish one, and the machine's own pages."""

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lora_lightning import recipe
from lora_lightning.doctor import examine
from lora_lightning.runs import notify
from lora_lightning.runs.files import write_json
from lora_lightning.ui import diagnostics, drafts, redraw, results


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


def test_a_picture_is_sent_to_generate_with_all_it_was_drawn_from(open_page, make_run, lora, workspace):
    run = make_run("pictures", "completed", verb="generate")
    facts = {"prompt": "a < b", "seed": "43", "steps": "7", "guidance": "2.5", "width": "512", "height": "768"}
    info = PngInfo()
    for name, value in {**facts, "loras": '[{"name": "mine", "weight": 0.8}]'}.items():
        info.add_itxt(name, value)
    run.samples.mkdir()
    Image.new("RGB", (64, 64), "teal").save(run.samples / "1.png", pnginfo=info)
    shown = "".join(html.proto.body for html in open_page("generate").get("html"))
    assert f'data-send="/generate?from=runs/{run.name}/samples/1.png"' in shown
    page = open_page("generate", **{"from": f"runs/{run.name}/samples/1.png"})
    assert page.text_area(key="generate.generate.prompts").value == "a \\< b <lora:mine:0.8>"
    made = recipe.inspect(drafts.load(workspace, "generate")).recipe.generate
    assert (made.seed, made.steps, made.guidance, made.width, made.height) == (43, 7, 2.5, 512, 768)
    page.number_input(key="generate.generate.seed").set_value(44).run()
    assert "from" not in page.query_params
    assert recipe.inspect(drafts.load(workspace, "generate")).recipe.generate.seed == 44


def test_a_training_sample_is_drawn_again_by_what_it_became(workspace, make_run, finish, draw_samples):
    run = make_run("mine", "completed")
    finish(run, "mine")
    draw_samples(run, steps=(0, 10), prompts=("a fox",))
    base, trained = (redraw.of_picture(workspace, f"runs/mine/samples/00000{step:02d}-0.png") for step in (0, 10))
    assert base["generate"]["prompts"] == ["a fox"]
    assert trained["generate"]["prompts"] == ["a fox <lora:mine>"]
    assert trained["model"] == {"base": "dev"}


@pytest.mark.parametrize("path", ["../outside.png", "runs/none.png", "runs/plain.png"])
def test_a_picture_that_says_nothing_is_a_card(open_page, workspace, path):
    workspace.runs.mkdir(parents=True)
    for file in (workspace.home.parent / "outside.png", workspace.runs / "plain.png"):
        Image.new("RGB", (8, 8)).save(file)
    page = open_page("generate", **{"from": path})
    assert "does not say what it was drawn from" in page.error[0].proto.title
    assert not page.text_area(key="generate.generate.prompts").value


def test_generate_begins_with_the_lora_it_was_opened_for(open_page, lora, workspace):
    page = open_page("generate", lora="mine")
    box = page.text_area(key="generate.generate.prompts")
    assert box.value == "a fox in a forest, MYSTYLE <lora:mine>"
    box.set_value("").run()
    assert page.text_area(key="generate.generate.prompts").value == ""


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


def test_a_report_holds_no_secret_and_no_picture(workspace, make_run, draw_samples, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "swordfish-9")
    run = make_run("mine", "failed", message="https://me:pass@host/x?token=abcdef said no")
    run.log_path.write_text(f"hf_abcdefghijk swordfish-9 Bearer abcdefghijkl\nat {Path.home()}/x\nstep 7\n")
    draw_samples(run, steps=(0,), prompts=("a fox",))
    notify.set_address(workspace, "https://hooks.example/abc")
    with zipfile.ZipFile(io.BytesIO(diagnostics.bundle(workspace, examine(workspace)))) as archive:
        said = "".join(archive.read(name).decode() for name in archive.namelist())
        assert not [name for name in archive.namelist() if name.endswith((".png", ".safetensors", ".sqlite"))]
        assert "step 7" in archive.read("runs/mine/log.txt").decode()
    for secret in ("hf_abcdefghijk", "swordfish", "abcdefghijkl", "me:pass", "token=abcdef", "hooks.example"):
        assert secret not in said, secret
    assert "said no" in said
    assert '"GPU"' in said


NEXT = [("caption", "Train on this dataset"), ("evaluate", "See the evaluation"), ("generate", "See the pictures")]


@pytest.mark.parametrize(("verb", "label"), NEXT)
def test_every_finished_step_offers_the_next(open_page, make_run, verb, label):
    run = make_run("mine", "completed", verb=verb)
    assert label in [button.label for button in open_page("run", id=run.name).button]


def test_the_webhook_is_kept_and_a_wrong_one_is_not(open_page, workspace):
    page = open_page("settings")
    page.text_input(key="webhook").set_value("https://hooks.example/abc").run()
    assert notify.address(workspace) == "https://hooks.example/abc"
    page.text_input(key="webhook").set_value("nonsense").run()
    assert notify.address(workspace) == "https://hooks.example/abc"
    assert "no web address" in page.toast[0].value


def test_the_space_is_measured_and_the_cache_cleared_but_not_under_a_run(open_page, workspace, make_run):
    workspace.cache.mkdir(parents=True)
    (workspace.cache / "latents").write_bytes(b"0" * 5000)
    page = open_page("settings")
    page.button(key="storage.measure").click().run()
    assert dict(zip(*(page.dataframe[0].value[column] for column in ("Part", "Size")), strict=True))["cache"] == "5 kB"
    page.button(key="storage.clear").click().run()
    assert not workspace.cache.exists()
    make_run("mine", "running", live=True)
    assert open_page("settings").button(key="storage.clear").disabled


def test_tensorboard_shows_one_run_when_asked(open_page, workspace):
    for name in ("mine", "v1.2"):
        events = workspace.runs / name / "tb" / "events.out.tfevents.1"
        events.parent.mkdir(parents=True)
        events.write_bytes(b"")
    assert "runFilter" not in open_page("tensorboard").get("iframe")[0].proto.src
    shown = open_page("tensorboard", run="v1.2").get("iframe")[0].proto.src
    assert "&runFilter=%5Ev1%5C.2/" in shown


def test_tensorboard_is_embedded_when_there_is_something_to_see(open_page, workspace):
    events = workspace.runs / "mine" / "tb" / "events.out.tfevents.1"
    events.parent.mkdir(parents=True)
    events.write_bytes(b"")
    page = open_page("tensorboard")
    assert not page.button
    assert page.get("iframe")[0].proto.src.startswith("/tb/?darkMode=")


def test_without_tensorboard_its_page_says_so(open_page, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert open_page("tensorboard").warning[0].proto.title == "TensorBoard is not installed here"
