"""What people do day by day, by clicking: a queue overnight, stop and go on, look closely at samples, begin anew."""

import re
import time

import pytest
from playwright.sync_api import expect

from lora_lightning import recipe
from lora_lightning.datasets.importing import import_sources
from lora_lightning.demo.sample import sample
from lora_lightning.runs import launch
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.job import reserve

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

MOST_CLICKS = 12


@pytest.fixture
def small(workspace, photos, tiny_flux):
    """Make a recipe that two cores train in seconds."""
    import_sources(workspace, "photographs", photos[:4])

    def made(name: str, steps: int, base: str = str(tiny_flux)) -> str:
        values = {
            "name": name,
            "trigger": "MYSTYLE",
            "model": {"base": base},
            "dataset": {"name": "photographs", "resolutions": [64]},
            "train": {"steps": steps, "sample_every": 20, "checkpoint_every": 20},
            "sample": {"prompts": ["a fox", "a hare"], "steps": 2, "width": 64, "height": 64},
        }
        return recipe.parse(values).to_yaml()

    return made


KEEP_NOTICES = """
window.told = []
window.Notification = class extends EventTarget {
  static permission = "granted"
  constructor(title) { super(); told.push(title) }
}"""


def until(condition, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def test_a_queue_goes_on_past_a_failure_and_the_order_can_be_changed(dashboard, visit, workspace, small):
    visitor = visit(dashboard(), height=1400)
    visitor.page.add_init_script(KEEP_NOTICES)
    visitor.go("runs")
    first = launch.start(workspace, "train", "first", small("first", 1_000_000))
    until(lambda: first.status().state == "running")
    rest = {}
    for name, base in (("second", "/nowhere/at/all"), ("third", None), ("fourth", None)):
        text = small(name, 20, base) if base else small(name, 20)
        rest[name] = launch.start(workspace, "train", name, text)
        until(lambda name=name: rest[name].status().queue_order > 0)
    visitor.sees("Waiting (3)").press("runs.fourth.up").settled()
    until(lambda: rest["fourth"].status().queue_order < rest["third"].status().queue_order)
    visitor.press("runs.first.stop")
    until(lambda: all(not run.status().live for run in (first, *rest.values())))
    assert [rest[name].status().state for name in ("second", "third", "fourth")] == ["failed", "completed", "completed"]
    assert rest["fourth"].read_state()["ended"] < rest["third"].read_state()["ended"]
    for word, count in (("Completed", 2), ("Failed", 1), ("Stopped", 1)):
        badges = visitor.page.locator("[data-testid=stMarkdownBadge], .stMarkdownBadge").filter(has_text=word)
        expect(badges).to_have_count(count, timeout=10_000)
    visitor.page.wait_for_function("told.length == 3")
    assert visitor.page.evaluate("told.sort()") == ["fourth: completed", "second: failed", "third: completed"]
    visitor.go("run?id=second").sees("There is no model folder /nowhere/at/all")
    assert visitor.errors == []


def test_force_stop_says_what_is_lost_and_the_state_is_true_within_seconds_in_every_window(
    dashboard, visit, workspace, small
):
    server = dashboard()
    run = launch.start(workspace, "train", "mine", small("mine", 1_000_000))
    until(lambda: run.status().done > 25)
    windows = [visit(server).go("run?id=mine"), visit(server, width=375, scheme="dark").go("runs")]
    for window in windows:
        window.sees("Running")
    windows[0].page.reload()
    windows[0].settled().sees(re.compile("Training [0-9,]+ of 1,000,000"))
    windows[0].click("Force stop").sees(re.compile("lost: [0-9]+ steps?"))
    windows[0].press("run.force_now")
    for window in windows:
        expect(window.page.get_by_text("Interrupted").first).to_be_visible(timeout=10_000)
    windows[0].press("run.resume").sees("Running", seconds=60)
    until(lambda: run.status().phase == "training")
    windows[0].settled().press("run.stop").sees("Stopped", seconds=60).settled()
    windows[0].press("run.clone").sees("Train", role="heading").settled()
    expect(windows[0].page.get_by_role("textbox", name="LoRA name")).to_have_value("mine-2")
    assert windows[0].errors == []


def test_samples_are_looked_at_closely_and_a_checkpoint_becomes_a_lora(dashboard, visit, workspace, small):
    run = launch.start(workspace, "train", "mine", small("mine", 60))
    until(lambda: not run.status().live)
    assert run.status().state == "completed", run.status()
    visitor = visit(dashboard(), height=1200).go("run?id=mine&tab=samples&step=40")
    page = visitor.page
    expect(page.locator(".ll-table td img")).to_have_count(8)
    expect(page.locator(".ll-table .ll-chosen").first).to_have_attribute("alt", re.compile("Step 40"))
    slider = page.get_by_role("slider", name=re.compile("Show more of one"))
    slider.press("End")
    cut = page.locator(".ll-compare").evaluate("box => box.style.getPropertyValue('--cut')")
    assert cut == "100%"
    page.locator(".ll-table td a").first.click()
    box = page.get_by_role("dialog", name="Picture")
    expect(box.get_by_text("1 of 8")).to_be_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(box.get_by_text("3 of 8")).to_be_visible()
    page.wait_for_function("document.querySelector('.ll-box-picture').naturalWidth == 64")
    page.keyboard.press("Escape")
    expect(box).to_be_hidden()
    page.locator(".ll-table td a").nth(2).click()
    box.get_by_role("link", name="Draw it again in Generate").click()
    visitor.sees("Filled in from 0000040-0.png").settled()
    expect(page.get_by_role("textbox", name="Prompts")).to_have_value("a fox <lora:mine>")
    page.go_back()
    visitor.settled().sees("mine", role="heading")
    visitor.go("run?id=mine&tab=checkpoints").press("use.40")
    made = RunFolder(workspace.run("mine-40"))
    until(lambda: made.recipe_path.is_file() and not made.status().live)
    assert made.status().state == "completed", made.status()
    assert made.result()["report"]["steps"] == 40
    assert workspace.lora("mine-40").read_bytes() != workspace.lora("mine").read_bytes()
    assert visitor.errors == []
    assert visitor.strangers == []


def test_back_and_forward_go_through_pages_and_tabs(dashboard, visit, workspace, small):
    reserve(workspace, "train", "broken", small("broken", 5)).write_state(state="failed", message="no space is left")
    visitor = visit(dashboard()).go("runs")
    visitor.page.get_by_role("link", name="broken").click()
    visitor.sees("broken", role="heading").settled()
    visitor.page.get_by_role("tab", name="Recipe").click()
    visitor.sees("learning_rate").settled()
    assert "tab=Recipe" in visitor.page.url
    visitor.page.reload()
    visitor.settled().sees("learning_rate")
    visitor.menu("Train")
    visitor.page.go_back()
    visitor.settled().sees("broken", role="heading")
    visitor.page.go_forward()
    visitor.settled().sees("Train", role="heading")
    assert visitor.errors == []


def test_from_a_new_workspace_to_a_rehearsed_lora_and_its_picture_in_few_clicks(dashboard, visit):
    visitor = visit(dashboard(), height=1300)
    visitor.go("").click("Import pictures").sees("There is no dataset yet").settled()
    visitor.page.get_by_text("On this machine", exact=True).click()
    visitor.settled()
    visitor.fill("import.name", "drawings").fill("import.folder", str(sample().archive))
    visitor.page.get_by_role("button", name="Import", exact=True).click()
    visitor.sees("20 pictures").settled().menu("Train").fill("train.train.steps", "40")
    visitor.click("Rehearse first").sees("rehearsal", role="heading")
    visitor.sees("The LoRA is finished", seconds=400).settled().click("Generate pictures")
    visitor.sees("Generate", role="heading").settled().click("Draw 1 picture")
    visitor.page.locator(".ll-grid img").first.wait_for(timeout=180_000)
    visitor.page.wait_for_function("document.querySelector('.ll-grid img').naturalWidth == 128")
    assert 0 < visitor.clicks <= MOST_CLICKS
    assert visitor.errors == []
    assert visitor.strangers == []
