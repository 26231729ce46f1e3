"""Runs in every state: what is shown is what is so, and each action does what it says."""

import time

import pytest

from lora_lightning import recipe
from lora_lightning.runs import queue, trash
from lora_lightning.runs.files import Lock, write_json
from lora_lightning.runs.folder import RunFolder, Status
from lora_lightning.runs.gpu import devices
from lora_lightning.ui import actions, charts, drafts, form, monitor, samples, window

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


def test_a_run_on_a_gpu_shows_how_that_gpu_fares(open_page, make_run, two_gpus):
    make_run("mine", "running", live=True, device="cuda-1")
    shown = {metric.label: metric.value for metric in open_page("run", id="mine").metric}
    assert shown == {"GPU busy": "97 %", "GPU memory": "31.5 / 80 GB", "Temperature": "71 °C", "Power": "640 W"}


def test_new_weights_begin_a_new_recipe(open_page, workspace, make_run, finish):
    run = make_run("mine", "completed")
    finish(run, "mine")
    run.checkpoints.mkdir()
    (run.checkpoints / "0000010.ckpt").write_bytes(b"")
    page = open_page("run", id="mine")
    page.button(key="run.weights").click().run()
    assert page.title[0].value == "Train"
    made = recipe.load(drafts.path(workspace, "train"))
    assert (made.name, made.lora.init_from) == ("mine-2", "mine")


def test_figures_say_what_they_mean(open_page, make_run):
    make_run("mine", "running", live=True, figures={"loss": 0.5, "peak_memory_mib": 1234.0})
    shown = {metric.label: metric for metric in open_page("run", id="mine").metric}
    assert "judge by the samples" in shown["Loss"].help
    assert shown["Peak memory"].value == "1,234 MiB"


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


def test_a_deleted_run_comes_back_by_one_click(open_page, workspace, make_run):
    make_run("mine", "stopped")
    page = open_page("runs").button(key="runs.mine.delete_now").click().run()
    page.button(key="undo_now").click().run()
    assert workspace.run("mine").exists()
    assert not [button for button in page.button if button.key == "undo_now"]


def test_the_trash_gives_back_and_is_emptied_only_when_told(open_page, workspace, make_run, texts):
    for name in ("first", "second"):
        trash.delete(workspace, make_run(name, "stopped"))
    page = open_page("runs", tab="trash")
    assert "There is no way back" in texts(page)
    next(button for button in page.button if str(button.key).startswith("restore.first")).click().run()
    assert workspace.run("first").exists()
    page.button(key="trash.empty").click().run()
    assert trash.listed(workspace) == []
    assert "The trash is empty" in texts(page)


def test_waiting_runs_are_moved_up_and_down(open_page, workspace, make_run):
    for order, name in enumerate(("a", "b", "c")):
        make_run(name, "queued", live=True, queue_order=float(order + 1))
    page = open_page("runs")
    assert page.button(key="runs.a.up").disabled
    assert page.button(key="runs.c.down").disabled
    page.button(key="runs.c.up").click().run()
    page.button(key="runs.a.down").click().run()
    assert [status.name for status in queue.waiting(workspace)] == ["c", "a", "b"]


def test_the_run_on_a_device_stands_under_it(open_page, workspace, make_run, texts):
    run = make_run("mine", "running", live=True, device=devices(workspace)[0].name)
    lock = Lock(devices(workspace)[0].lock_path)
    assert lock.acquire()
    devices(workspace)[0].lock_path.write_text(run.name)
    assert "used by mine" in texts(open_page("runs"))
    lock.release()


def test_a_waiting_run_is_sent_to_another_gpu(open_page, workspace, make_run, two_gpus):
    for order, (name, wanted) in enumerate((("a", "cuda-0"), ("b", ""), ("c", "cuda-1"))):
        make_run(name, "queued", live=True, queue_order=float(order + 1), wanted=wanted)
    page = open_page("runs")
    assert [each.value for each in page.subheader] == [
        "Waiting for cuda-0 (1)", "Waiting for cuda-1 (1)", "Waiting (1)",
    ]  # fmt: skip
    assert page.button(key="runs.a.down").disabled is False  # b may take its device
    page.selectbox(key="runs.b.device").set_value("cuda-1").run()
    assert RunFolder(workspace.run("b")).status().wanted == "cuda-1"
    assert page.button(key="runs.a.down").disabled
    page.button(key="runs.c.up").click().run()
    assert [status.name for status in queue.rivals(queue.waiting(workspace), "b")] == ["c", "b"]
    page.selectbox(key="runs.a.device").set_value("").run()
    assert RunFolder(workspace.run("a")).status().wanted == ""


def test_ended_runs_are_found_by_how_they_ended_and_by_name(open_page, make_run):
    make_run("fox-one", "stopped")
    make_run("fox-two", "failed")
    make_run("hare", "failed")
    page = open_page("runs")

    def shown():
        return {button.key.split(".")[1] for button in page.button if str(button.key).endswith(".clone")}

    page.segmented_control(key="runs.group").set_value("Failed").run()
    assert shown() == {"fox-two", "hare"}
    page.text_input(key="runs.name").set_value("FOX").run()
    assert shown() == {"fox-two"}


def test_save_and_sample_now_are_asked_once_and_say_that_they_were_heard(open_page, make_run):
    run = make_run("mine", "running", live=True, phase="training", done=5, total=9)
    page = open_page("run", id="mine")
    for control in ("SAVE", "SAMPLE"):
        page.button(key=f"run.{control.lower()}").click().run()
        assert run.requested(control)
        assert page.button(key=f"run.{control.lower()}").disabled
        run.take(control)
    assert not page.run().button(key="run.save").disabled


def test_force_stop_counts_the_steps_that_are_lost(open_page, make_run, texts):
    run = make_run("mine", "running", live=True, phase="training", done=340, total=2000)
    run.checkpoints.mkdir()
    (run.checkpoints / "0000250.ckpt").write_bytes(b"")
    assert "Everything since its last checkpoint is lost: 90 steps" in texts(open_page("run", id="mine"))


REMEDIES = [
    ("OutOfMemory", "Clone with less memory", ("model.low_vram", True), ("train.batch_size", 1)),
    ("Diverged", "Clone with learning rate 0.0002", ("train.learning_rate", 2e-4), ("train.steps", 1000)),
]


@pytest.mark.parametrize(("error", "label", "first", "second"), REMEDIES)
def test_a_failure_offers_the_run_that_would_not_fail(open_page, workspace, make_run, error, label, first, second):
    make_run("mine", "failed", error=error, message="it failed", hint="Do this.")
    page = open_page("run", id="mine")
    button = page.button(key="remedy")
    assert button.label == label
    button.click().run()
    assert page.title[0].value == "Train"
    draft = drafts.load(workspace, "train")
    assert draft["name"] == "mine-2"
    assert [form.stored(draft, path) for path, _ in (first, second)] == [first[1], second[1]]


def test_continuing_is_a_new_run_from_the_checkpoint(open_page, workspace, make_run):
    run = make_run("mine", "completed")
    run.checkpoints.mkdir()
    (run.checkpoints / "0001000.ckpt").write_bytes(b"weights")
    page = open_page("run", id="mine")
    assert page.number_input(key="run.to").min == 1001
    page.number_input(key="run.to").set_value(1800).run()
    page.button(key="run.further_now").click().run()
    longer = RunFolder(workspace.run("mine-2"))
    assert page.query_params["id"] == "mine-2"
    assert recipe.load(longer.recipe_path).train.steps == 1800
    assert (longer.checkpoints / "0001000.ckpt").read_bytes() == b"weights"
    assert recipe.load(run.recipe_path).train.steps == 1000
    deadline = time.monotonic() + 60
    while longer.status().live and time.monotonic() < deadline:
        time.sleep(0.1)


def test_the_longest_training_there_can_be_is_shown_too(open_page, workspace, make_run):
    run = make_run("mine", "stopped")
    longest = recipe.load(run.recipe_path, [f"train.steps={actions.MOST_STEPS}"])
    run.recipe_path.write_text(longest.to_yaml())
    run.checkpoints.mkdir()
    (run.checkpoints / "0000094.ckpt").write_bytes(b"")
    assert open_page("run", id="mine").number_input(key="run.to").value == actions.MOST_STEPS


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


@pytest.mark.parametrize("tab", ["Samples", "Log", "recipe", "Files", "curves", "Checkpoints"])
def test_a_tab_opens_from_its_address(open_page, make_run, finish, texts, tab):
    run = make_run("mine", "completed")
    finish(run, "mine")
    run.log_path.write_text("03:12 step 1\n")
    page = open_page("run", id="mine", tab=tab)
    shown = {
        "Samples": "No samples yet",
        "Log": "03:12 step 1",
        "recipe": "learning_rate: 0.0004",
        "curves": "Nothing to draw yet",
        "Checkpoints": "No checkpoint yet",
        "Files": "recipe.yaml",
    }
    tables = "".join(str(list(table.value["File"])) for table in page.dataframe)
    assert shown[tab] in texts(page) + tables


def test_samples_are_a_table_of_prompt_by_step_beside_the_base(open_page, make_run, draw_samples):
    run = make_run("mine", "stopped")
    draw_samples(run, steps=(0, 50, 100), prompts=("a <fox>", "a hare"))
    page = open_page("run", id="mine", tab="samples", step="60")
    bodies = [html.proto.body for html in page.get("html")]
    (table,) = [body for body in bodies if "<table" in body]
    assert table.count("<img") == 6
    assert "Base (step 0)" in table
    assert "a &lt;fox&gt;" in table
    assert table.count("ll-chosen") == 2
    assert "/generate?from=runs/mine/samples/0000050-1.png" in table
    (slider,) = [body for body in bodies if 'class="ll-compare"' in body]
    assert "0000000-0.png" in slider
    assert "0000050-0.png" in slider
    page.select_slider[0].set_value(100).run()
    assert page.query_params["step"] == "100"


def test_of_many_steps_evenly_spread_ones_and_the_chosen_are_shown():
    shown = samples.spread(range(0, 10_000, 100), 4_200)
    assert len(shown) <= samples.MOST_STEPS
    assert {0, 4_200, 9_900} <= set(shown)
    assert shown == sorted(shown)


def test_checkpoints_are_listed_with_what_they_draw(open_page, make_run, draw_samples, texts):
    run = make_run("mine", "stopped")
    draw_samples(run, steps=(100,), prompts=("a fox",))
    run.checkpoints.mkdir()
    (run.checkpoints / "0000100.ckpt").write_bytes(b"0" * 5000)
    write_json(run.checkpoints / "0000100.json", {"step": 100, "sha256": ""})
    (run.checkpoints / "0000200.ckpt").write_bytes(b"half")
    page = open_page("run", id="mine", tab="checkpoints")
    assert "**Step 100**" in texts(page)
    assert "5 kB" in texts(page)
    assert "Step 200" not in texts(page)
    assert "0000100-0.png" in "".join(html.proto.body for html in page.get("html"))


def test_two_runs_are_compared_by_loss_samples_and_recipe(
    open_page, workspace, make_run, write_losses, draw_samples, texts
):
    for name, loss in (("first", 1.0), ("second", 2.0)):
        run = make_run(name, "stopped")
        write_losses(run, [loss] * 5)
        draw_samples(run, steps=(0, 5), prompts=("a fox",))
    other = recipe.load(workspace.run("second") / "recipe.yaml", ["lora.rank=32"])
    (workspace.run("second") / "recipe.yaml").write_text(other.to_yaml())
    page = open_page("runs", tab="compare", compare=["first", "second"])
    (row,) = page.dataframe[0].value.to_dict("records")
    assert row == {"Field": "Rank", "Path": "lora.rank", "first": "16", "second": "32"}
    table = next(html.proto.body for html in page.get("html") if "<table" in html.proto.body)
    assert "runs/first/samples/0000005-0.png" in table
    assert "runs/second/samples/0000005-0.png" in table
    page.multiselect(key="compare.runs").set_value(["first"]).run()
    assert "Choose two to four runs." in texts(page)


BANDS = ["loss/detail", "loss/structure", "loss/layout"]


def test_the_loss_by_noise_level_is_drawn_in_one_chart():
    groups = charts.groups(["step", "loss", "learning_rate", *BANDS, "validation/all", "validation/error"])
    assert groups == {
        "Loss by noise level (sigma)": sorted(BANDS),
        "Held-out loss against the base (below 1 is better)": ["validation/all"],
        "Learning rate": ["learning_rate"],
    }


def test_a_growing_file_is_read_on_and_a_step_made_again_counts_once(make_run):
    run = make_run("mine", "stopped")
    rows = charts.Rows(run.metrics_path)
    assert rows.table().empty
    run.metrics_path.write_text('{"step": 1, "loss": 4}\n{"step": 2, "loss": 3}\n{"step": 2, "validation": 9}\n{"st')
    assert rows.table()["loss"].tolist() == [4, 3]
    assert rows.table().loc[2, "validation"] == 9
    with run.metrics_path.open("a") as file:
        file.write('ep": 2, "loss": 1}\n{"step": 3, "loss": 0}\n')
    assert rows.table()["loss"].tolist() == [4, 1, 0]
    run.metrics_path.write_text('{"step": 1, "loss": 7}\n')
    assert rows.table()["loss"].tolist() == [7]


def test_word_is_given_of_runs_that_ended_by_themselves(make_run):
    before = {"done": "running", "broke": "queued", "went": "stopping", "old": "failed", "works": "running"}
    now = {name: Status(name, "train", state) for name, state in before.items()}
    now |= {
        "done": Status("done", "train", "completed"),
        "broke": Status("broke", "train", "failed"),
        "went": Status("went", "train", "stopped"),
        "new": Status("new", "train", "failed"),
    }
    assert [status.name for status in window.ended(before, now)] == ["done", "broke"]


def test_a_run_that_ends_while_somebody_looks_is_told_of(open_page, make_run):
    run = make_run("mine", "running", live=True)
    page = open_page("settings")
    assert not page.toast
    run.lock.release()
    run.write_state(state="failed", message="no space left", ended=time.time())
    assert "mine: failed" in page.run().toast[0].value
    assert not page.run().toast


def test_the_loss_curve_is_thin_and_keeps_its_mean(make_run, write_losses):
    run = make_run("mine", "stopped")
    write_losses(run, [1.0, 3.0] * 5000)
    curve = charts.loss_curve(charts.table(run))
    assert len(curve) <= charts.POINTS
    assert curve["measured"].mean() == pytest.approx(2.0)
    assert charts.loss_curve(charts.table(make_run("other", "stopped"))).empty
