"""Fill in a recipe; its problems are shown at once, and the draft is never lost."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lightning import recipe
from lora_lightning.datasets import buckets
from lora_lightning.runs import launch
from lora_lightning.runs.files import Lock, write_json
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.gpu import devices
from lora_lightning.ui import advice, cards, drafts, form, kitchen, preflight


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
    page = open_page("train", view="Advanced")
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


def test_the_chosen_gpu_is_checked_told_and_taken(
    open_page, workspace, dataset, model_folder, two_gpus, texts, monkeypatch
):
    monkeypatch.setattr(launch, "_detach", lambda run, argv: None)  # the process is tested with the queue
    page = ready(open_page("train"), model_folder)
    box = page.selectbox(key="train.device")
    assert box.options == ["Whichever is free first", "cuda-0: Small, 12 GB", "cuda-1: Large, 80 GB"]
    assert "CUDA_VISIBLE_DEVICES" not in texts(page)
    page.text_input(key="train.model.base").set_value("dev").run()
    for name, there in (("cuda-0", 12), ("cuda-1", 80)):
        page.selectbox(key="train.device").set_value(name).run()
        told = next(bar.proto.text for bar in page.get("progress") if bar.proto.text.startswith("**VRAM**"))
        needed, usable = map(float, re.findall(r"([0-9.]+) G?i?B? ?of ([0-9.]+) GiB", told)[0])
        assert 0.9 * there < usable <= there
        assert 5 < needed <= usable
    assert "CUDA_VISIBLE_DEVICES=1 python -m lora_lightning train" in texts(page)
    page.text_input(key="train.model.base").set_value(str(model_folder)).run()
    start(page).click().run()
    assert RunFolder(workspace.run("my-style")).status().wanted == "cuda-1"


def test_simple_shows_what_matters_and_keeps_what_it_does_not_show(open_page, workspace, dataset):
    page = open_page("train", view="Advanced")
    page.number_input(key="train.train.accumulate").set_value(3).run()
    page.segmented_control(key="view").set_value("Simple").run()
    assert not [widget for widget in page.number_input if widget.key == "train.train.accumulate"]
    page.number_input(key="train.train.steps").set_value(77).run()
    made = recipe.load(drafts.path(workspace, "train"))
    assert (made.train.accumulate, made.train.steps) == (3, 77)


def test_advanced_holds_every_field_of_a_training_and_finds_one_by_a_word(open_page, dataset):
    page = open_page("train", view="Advanced")

    def keys():
        kinds = (page.text_input, page.text_area, page.number_input, page.selectbox, page.toggle)
        return {widget.key for kind in kinds for widget in kind if str(widget.key).startswith("train.")}

    fields = {path for section in kitchen.SECTIONS for path in form.paths(section)} - {"dataset.name"}
    unread = {path for path in fields if not form._applies(path, {}, {})}
    assert keys() - {"train.find"} == {f"train.{path}" for path in fields - unread}
    page.text_input(key="train.find").set_value("momen").run()
    assert "No field is called so" in " ".join(each.value for each in page.markdown)
    page.text_input(key="train.find").set_value("noise level sigma").run()
    assert "train.train.timesteps" in keys()
    assert "train.lora.targets" not in keys()


ADVICE = [
    ("quality", {"train": {"steps": 1200, "learning_rate": 3e-4}, "lora": {"rank": 20}}),
    ("speed", {"train": {"steps": 1000}, "model": {"base": "schnell"}, "sample": {"steps": 4}}),
    ("memory", {"model": {"low_vram": True}, "lora": {"rank": 12}}),
]


@pytest.mark.parametrize(("name", "wanted"), ADVICE)
def test_advice_moves_what_is_outside_its_range_and_says_so(open_page, workspace, dataset, name, wanted, texts):
    page = open_page("train")
    page.button(key=f"advice.{name}").click().run()
    made = recipe.inspect(drafts.load(workspace, "train")).recipe.model_dump()
    for section, values in wanted.items():
        assert {field: made[section][field] for field in values} == values
    assert "→" in texts(page)
    page.button(key=f"advice.{name}").click().run()
    assert "Nothing to change" in texts(page)


@given(st.integers(1, 4000), st.integers(1, 256), st.floats(1e-6, 1e-2))
def test_advice_is_done_after_one_click_and_leaves_good_values_alone(steps, rank, rate):
    values = {"name": "x", "train": {"steps": steps, "learning_rate": rate}, "lora": {"rank": rank}}
    for bundle in advice.BUNDLES.values():
        done = advice.applied(values, advice.changes(bundle, values))
        assert advice.changes(bundle, done) == []
        for path, (low, high) in bundle.ranges.items():
            before, after = form.stored(values, path), form.stored(done, path)
            assert low <= after <= high
            assert after == before or not low <= before <= high


def test_a_recipe_from_elsewhere_becomes_the_draft(open_page, workspace, dataset, texts):
    page = open_page("train")
    page.session_state["train.share"] = True
    page.run()
    page.text_area(key="recipe.text").set_value("name: theirs\ntrain: {steps: 55}\n").run()
    page.button(key="recipe.use").click().run()
    assert page.number_input(key="train.train.steps.1").value == 55
    assert recipe.load(drafts.path(workspace, "train")).name == "theirs"
    for wrong in ("name: [", "just words", "colour: red"):
        page.text_area(key="recipe.text").set_value(wrong).run()
        page.button(key="recipe.use").click().run()
        assert "This is no" in texts(page)
    assert recipe.load(drafts.path(workspace, "train")).name == "theirs"


def test_a_taken_name_is_fixed_by_a_click(open_page, dataset, model_folder, make_run, texts):
    make_run("my-style", "stopped")
    page = ready(open_page("train"), model_folder)
    next(button for button in page.button if button.label == "Call it my-style-2").click().run()
    assert page.text_input(key="train.name.1").value == "my-style-2"
    assert not start(page).disabled


def test_a_value_that_cannot_be_is_put_back_by_a_click(open_page, dataset, model_folder):
    page = ready(open_page("train", view="Advanced"), model_folder)
    page.text_input(key="train.dataset.resolutions").set_value("100").run()
    assert start(page).disabled
    next(button for button in page.button if button.label == "Put back the default").click().run()
    assert page.text_input(key="train.dataset.resolutions.1").value == "512, 768, 1024"
    assert not start(page).disabled


def test_captions_and_pictures_that_need_work_link_to_where_it_is_done(open_page, workspace, dataset):
    page = open_page("train")
    links = {link.proto.label: link.proto for link in page.get("page_link")}
    assert links["Caption them"].page.endswith("captions")
    assert "dataset=photographs" in str(links["Caption them"])
    assert "Look at the captions" in links


def test_figures_say_how_often_a_picture_is_seen_and_time_only_from_a_run_like_it(
    open_page, dataset, make_run, model_folder
):
    page = open_page("train")
    page.number_input(key="train.train.steps").set_value(150).run()
    shown = {metric.label: metric.value for metric in page.metric}
    assert shown["Steps a picture"] == "50"
    assert shown["Time"] == "unknown"
    write_json(make_run("before", "completed").path / "result.json", {"report": {"steps_per_second": 2.5}})
    shown = {metric.label: metric.value for metric in page.run().metric}
    assert shown["Time"] == "60 s"
    page.text_input(key="train.model.base").set_value("schnell").run()
    assert {metric.label: metric.value for metric in page.metric}["Time"] == "unknown"


def test_the_density_shown_is_that_of_the_sampler():
    made = recipe.load("style", ["dataset.resolutions=[512, 1024]"])
    curve = preflight.density(made)
    assert list(curve) == ["sigma", "512 px", "1024 px"]
    assert curve[["512 px", "1024 px"]].mean().tolist() == pytest.approx([1, 1], abs=0.01)
    peaks = [curve["sigma"][curve[name].idxmax()] for name in ("512 px", "1024 px")]
    assert 0.5 < peaks[0] < peaks[1]


def test_the_crops_shown_are_those_of_training(open_page, dataset):
    page = open_page("train")
    drawn = '<div class="ll-crops">'
    assert not [html for html in page.get("html") if drawn in html.proto.body]
    page.session_state["train.crops"] = True
    body = "".join(html.proto.body for html in page.run().get("html") if drawn in html.proto.body)
    for picture in dataset.pictures():
        bucket = buckets.choose(picture.width, picture.height, (512, 768, 1024))[-1]
        assert f"/thumbs/photographs/{picture.file}" in body
        assert f"aspect-ratio:{bucket.width}/{bucket.height}" in body


def test_a_rehearsal_trains_the_embedded_model_under_its_own_name(open_page, workspace, dataset, make_run):
    make_run("my-style-rehearsal", "stopped")
    busy = Lock(devices(workspace)[0].lock_path)
    assert busy.acquire()
    page = open_page("train")
    next(button for button in page.button if button.label == "Rehearse first").click().run()
    run = workspace.run("my-style-rehearsal-2")
    made = recipe.load(run / "recipe.yaml")
    assert (made.model.base, made.dataset.resolutions, made.name) == ("flux-mini", (128,), "my-style-rehearsal-2")
    assert page.query_params["id"] == "my-style-rehearsal-2"
    deadline = time.monotonic() + 60
    while not RunFolder(run).status().started and time.monotonic() < deadline:
        time.sleep(0.1)
    launch.force_stop(RunFolder(run))
    busy.release()
    _wait_until_ended(run)


def _wait_until_ended(path):
    """Let the job that was really started come to its end, so that nothing outlives the test."""
    run, deadline = RunFolder(path), time.monotonic() + 60
    while run.status().live and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not run.status().live
