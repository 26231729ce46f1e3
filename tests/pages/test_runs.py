"""Runs in every state: what is shown is what is so, and each action does what it says."""

import pytest

from lora_lightning import recipe
from lora_lightning.runs.folder import Status
from lora_lightning.ui import charts, drafts, monitor

WORDS = [
    ("running", True, {"phase": "training", "done": 340, "total": 2000, "eta_seconds": 3000.0}, "Running"),
    ("queued", True, {"message": "waiting: cpu is used by other"}, "Queued"),
    ("stopped", False, {"phase": "training", "done": 340, "total": 2000}, "Stopped"),
    ("running", False, {"phase": "training", "done": 340, "total": 2000}, "Interrupted"),
    ("failed", False, {"message": "no space left on the disk", "hint": "Free some space."}, "Failed"),
]


def words(page):
    return " ".join(element.value for element in page.markdown)


@pytest.mark.parametrize(("state", "live", "stored", "word"), WORDS)
def test_the_true_state_is_shown_in_the_list_and_on_its_page(open_page, make_run, state, live, stored, word):
    make_run("mine", state, live=live, **stored)
    assert word in words(open_page("runs"))
    assert word in words(open_page("run", id="mine"))


def test_progress_says_phase_units_and_time_left():
    status = Status("mine", "train", "running", phase="training", done=340, total=2000, eta_seconds=3000)
    assert monitor.progress_text(status) == "Training 340 of 2,000, about 50 min left"


def test_a_failed_run_tells_why_and_what_to_do(open_page, make_run, texts):
    make_run("mine", "failed", message="no space left on the disk", hint="Free some space.")
    said = texts(open_page("run", id="mine"))
    assert "No space left on the disk" in said
    assert "Free some space." in said


def test_stop_asks_the_run_to_save_and_end(open_page, make_run):
    run = make_run("mine", "running", live=True, phase="training", done=1, total=9)
    page = open_page("run", id="mine")
    page.button(key="run.stop").click().run()
    assert run.requested("STOP")
    assert "Stopping" in words(page)
    assert page.button(key="run.stop").disabled


def test_force_stop_says_what_is_lost_before_it_does_it(open_page, make_run, texts):
    make_run("mine", "running", live=True)
    assert "Everything since its last checkpoint is lost" in texts(open_page("run", id="mine"))


def test_delete_moves_the_folder_to_the_trash(open_page, workspace, make_run):
    make_run("mine", "stopped")
    open_page("runs").button(key="runs.mine.delete_now").click().run()
    assert not workspace.run("mine").exists()
    assert len(list((workspace.home / "trash").glob("mine.*"))) == 1


def test_a_working_run_offers_no_delete_and_an_ended_one_no_stop(open_page, make_run):
    make_run("works", "running", live=True)
    make_run("ended", "stopped")
    keys = {button.key for button in open_page("runs").button}
    assert "runs.works.stop" in keys
    assert "runs.works.delete_now" not in keys
    assert {"runs.ended.resume", "runs.ended.clone", "runs.ended.delete_now"} <= keys
    assert "runs.ended.stop" not in keys


def test_clone_opens_train_with_the_recipe_under_a_free_name(open_page, workspace, make_run):
    make_run("mine", "stopped")
    page = open_page("runs").button(key="runs.mine.clone").click().run()
    assert page.title[0].value == "Train"
    assert page.text_input(key="train.name.1").value == "mine-2"
    cloned = recipe.parse(drafts.load(workspace, "train"))
    assert cloned.train == recipe.load(workspace.run("mine") / "recipe.yaml").train


def test_put_first_moves_a_waiting_run_to_the_front(open_page, make_run):
    first = make_run("first", "queued", live=True, queue_order=1.0)
    second = make_run("second", "queued", live=True, queue_order=2.0)
    open_page("runs").button(key="runs.second.first").click().run()
    assert second.status().queue_order < first.status().queue_order


def test_a_finished_run_leads_to_its_use(open_page, make_run, finish, texts):
    file = finish(make_run("mine", "completed"), "mine")
    said = texts(open_page("run", id="mine"))
    assert str(file) in said
    assert "Generate pictures" in said


def test_a_finished_run_whose_lora_is_gone_is_not_called_completed(open_page, make_run, finish):
    finish(make_run("mine", "completed"), "mine").unlink()
    page = open_page("run", id="mine")
    assert "Failed" in words(page)
    assert not page.success


@pytest.mark.parametrize("id", ["absent", "../../etc", "a/b"])
def test_an_address_that_names_no_run_is_a_card(open_page, id):
    assert len(open_page("run", id=id).error) == 1


@pytest.mark.parametrize("tab", ["Samples", "Log", "Recipe", "Files"])
def test_a_tab_opens_from_its_address(open_page, make_run, finish, texts, tab):
    run = make_run("mine", "completed")
    finish(run, "mine")
    run.log_path.write_text("03:12 step 1\n")
    page = open_page("run", id="mine", tab_run=tab)
    shown = {
        "Samples": "No samples yet",
        "Log": "03:12 step 1",
        "Recipe": "learning_rate: 0.0004",
        "Files": "recipe.yaml",
    }
    tables = "".join(str(list(table.value["File"])) for table in page.dataframe)
    assert shown[tab] in texts(page) + tables


def test_the_loss_curve_is_thin_and_keeps_its_mean(make_run, write_losses):
    run = make_run("mine", "stopped")
    write_losses(run, [1.0, 3.0] * 5000)
    curve = charts.loss_curve(run.metrics())
    assert len(curve) <= charts.POINTS
    assert curve["measured"].mean() == pytest.approx(2.0)
    assert charts.loss_curve([]).empty
    assert charts.loss_curve([{"step": 1, "rate": 0.1}]).empty
