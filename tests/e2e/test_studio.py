"""Captions and pictures put right by clicking: filter, replace many, undo, set a near duplicate aside and back."""

import re

import pytest
from PIL import Image
from playwright.sync_api import expect

from lora_lightning.datasets import variations
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.ui import drafts

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
expect.set_options(timeout=30_000)


@pytest.fixture
def dataset(workspace, photos, tmp_path) -> Dataset:
    """Photographs with captions, and a smaller copy of one."""
    with Image.open(photos[0]) as astronaut:
        astronaut.resize((400, 400)).save(tmp_path / "astronaut-copy.jpg", quality=80)
    import_sources(workspace, "photographs", [*photos[:4], photos[5], tmp_path / "astronaut-copy.jpg"])
    made = Dataset.open(workspace.dataset("photographs"))
    for picture in made.pictures():
        made.write_caption(
            picture.id, f"A red {picture.name[:5]} thing. There is a watermark on it.", author="captioner"
        )
    made.write_caption(made.pictures()[-1].id, "A grey cup of coffee.", author="human")
    return made


def captions(dataset) -> list[str]:
    return [picture.caption for picture in dataset.pictures()]


def press(page, name: str) -> None:
    """Press the first button of a name from the keyboard."""
    page.get_by_role("button", name=name).first.press("Enter")


def test_captions_are_filtered_replaced_with_a_preview_and_taken_back(dashboard, visit, dataset):
    before = captions(dataset)
    visitor = visit(dashboard(), height=1400).go("captions?dataset=photographs")
    page = visitor.page
    boxes = page.locator("textarea[aria-label$='.png'], textarea[aria-label$='.jpg']")
    expect(boxes).to_have_count(6)
    press(page, "5 Claims a watermark")
    expect(boxes).to_have_count(5)
    visitor.fill("find", "flagged:watermark AND NOT name:astro*")
    expect(boxes).to_have_count(3)

    page.get_by_text("Edit many captions").click()
    visitor.sees("Find this").fill("bulk.find.0", "red").fill("bulk.replacement.0", "crimson")
    visitor.sees("3 of the 3 captions in view would change")
    expect(page.locator("ins").first).to_have_text("crimson")
    assert captions(dataset) == before
    visitor.press("bulk.apply").sees("3 captions changed").settled()
    assert sum("crimson" in caption for caption in captions(dataset)) == 3

    page.get_by_text("Past edits of many captions").click()
    visitor.press("bulk.undo.1").sees("Redo").settled()
    assert captions(dataset) == before
    press(page, "History")
    expect(page.get_by_role("button", name="Restore")).to_have_count(2)
    page.get_by_role("button", name="Restore").first.press("Enter")
    visitor.sees(re.compile("✓ Saved")).settled()
    assert sum("crimson" in caption for caption in captions(dataset)) == 1
    page.reload()
    visitor.settled()
    expect(page.get_by_role("textbox", name="Find", exact=True)).to_have_value("flagged:watermark AND NOT name:astro*")
    expect(boxes).to_have_count(3)
    assert visitor.errors == []
    assert visitor.strangers == []


def test_a_near_duplicate_is_set_aside_and_brought_back(dashboard, visit, dataset):
    visitor = visit(dashboard(), height=1400).go("datasets?dataset=photographs&tab=Check+pictures")
    visitor.click("Check 6 pictures").sees("Near duplicates (1 group)", role="heading").settled()
    visitor.page.wait_for_function(
        "[...document.querySelectorAll('.ll-grid img')].slice(0, 2).every(picture => picture.naturalWidth > 0)"
    )
    visitor.click("Set 1 picture aside").sees("Set aside (1)", role="heading").settled()
    assert [picture.name for picture in dataset.pictures()].count("astronaut-copy.jpg") == 0
    expect(visitor.page.get_by_role("heading", name="Near duplicates")).to_have_count(0)
    visitor.click("Bring back").sees("Near duplicates (1 group)", role="heading").settled()
    assert len(dataset.pictures()) == 6
    assert visitor.errors == []
    assert visitor.strangers == []


def caption_box(page):
    """The box of the one picture in view."""
    return page.locator("textarea[aria-label$='.png'], textarea[aria-label$='.jpg']").first


def test_captions_are_reviewed_from_the_keyboard(dashboard, visit, dataset):
    visitor = visit(dashboard(), height=1400).go("captions?dataset=photographs&layout=One+by+one")
    page, box = visitor.page, caption_box(visitor.page)
    page.wait_for_timeout(500)
    names = [picture.name for picture in dataset.pictures()]
    expect(box).to_have_attribute("aria-label", names[0])
    for key, place in (("j", 1), ("j", 2), ("k", 1), ("k", 0)):
        page.keyboard.press(key)
        expect(box).to_have_attribute("aria-label", names[place])
        visitor.settled()
        page.wait_for_timeout(200)  # the buttons below the box follow it; nobody is faster
    box.fill("An astronaut smiles, j and k are typed.")
    page.keyboard.press("Control+Enter")
    expect(box).to_have_attribute("aria-label", names[1])
    visitor.settled()
    page.wait_for_timeout(200)
    page.keyboard.press("Control+Enter")
    expect(box).to_have_attribute("aria-label", names[2])
    visitor.settled()
    page.wait_for_timeout(200)
    page.keyboard.press("n")
    expect(box).to_have_attribute("aria-label", names[3])
    visitor.settled()
    first, second, third = dataset.pictures()[:3]
    assert (first.caption, first.author) == ("An astronaut smiles, j and k are typed.", "human")
    assert (second.version, second.author, third.author) == (2, "human", "captioner")
    assert visitor.errors == []


def test_two_windows_never_overwrite_each_other(dashboard, visit, dataset):
    server = dashboard()
    first, second = (visit(server, height=1400).go("captions?dataset=photographs&find=coffee") for _ in range(2))
    name = dataset.pictures()[-1].name
    for visitor, text in ((first, "A cup from the first window."), (second, "A cup from the second window.")):
        caption_box(visitor.page).fill(text)
        caption_box(visitor.page).press("Tab")
        visitor.settled()
    second.sees("This caption was changed elsewhere while you wrote")
    expect(second.page.locator("del").first).to_have_text("first")
    expect(second.page.locator("ins").first).to_have_text("second")
    assert dataset.pictures()[-1].caption == "A cup from the first window."
    second.click("Save mine").sees(re.compile("✓ Saved")).settled()
    last = dataset.pictures()[-1]
    assert (last.name, last.caption, last.version) == (name, "A cup from the second window.", 4)
    assert [version.text for version in dataset.history(last.id)][2] == "A cup from the first window."


def test_a_folder_is_uploaded_file_by_file_and_a_crop_is_moved(dashboard, visit, workspace, photos, tmp_path):
    folder = tmp_path / "holiday"
    for number in range(24):
        (folder / f"day {number % 3}").mkdir(parents=True, exist_ok=True)
        with Image.open(photos[number % 12]) as photo:
            small = photo.convert("RGB").resize((320, 128)).rotate(number // 12 * 180)
            small.save(folder / f"day {number % 3}" / f"IMG_{number // 3}.jpg")
        (folder / f"day {number % 3}" / f"IMG_{number // 3}.txt").write_text(f"picture number {number}")
    visitor = visit(dashboard(), height=1400).go("datasets")
    page = visitor.page
    visitor.fill("import.name", "holiday")
    page.get_by_text("Very many files").first.click()
    visitor.sees("Choose a folder").settled()
    page.locator("input.folder-input").set_input_files(folder)
    visitor.sees("48 of 48 files are here").settled()
    page.get_by_role("button", name="Import", exact=True).press("Enter")
    visitor.sees("24 pictures with 24 captions").settled()
    made = Dataset.open(workspace.dataset("holiday"))
    assert sorted(picture.caption for picture in made.pictures()) == sorted(f"picture number {n}" for n in range(24))
    assert not list((workspace.home / ".uploads").iterdir())

    visitor.go("datasets?dataset=holiday&tab=Crops")
    tile = page.locator("button[aria-label*='cuts around']").first
    tile.wait_for()
    visitor.settled()  # what is above may still grow and push it away
    place = tile.bounding_box()
    page.mouse.click(place["x"] + place["width"] * 0.9, place["y"] + place["height"] / 2)
    visitor.sees("cuts moved")
    visitor.settled()
    (moved,) = [picture for picture in made.pictures() if (picture.focus_x, picture.focus_y) != (0.5, 0.5)]
    assert abs(moved.focus_x - 0.9) < 0.01
    tile.press("Home")
    expect(tile).to_have_attribute("aria-label", re.compile("50 % across, 50 % down"))
    page.wait_for_timeout(500)
    visitor.settled()
    assert all(picture.focus_x == 0.5 for picture in made.pictures())
    assert visitor.errors == []
    assert visitor.strangers == []


def test_flagged_captions_are_rolled_again_by_the_real_job(dashboard, visit, dataset, workspace, tiny_captioner):
    drafts.save(workspace, "caption", {"caption": {"captioner": str(tiny_captioner), "max_tokens": 4}})
    written = {picture.id: picture.caption for picture in dataset.pictures()}
    visitor = visit(dashboard(), height=1400).go("captions?dataset=photographs&find=name%3Da*")
    visitor.click("Re-roll 2 captions").sees("photographs.caption: completed", seconds=120).settled()
    for picture in dataset.pictures():
        history = dataset.history(picture.id)
        if picture.name.startswith("a"):
            assert len(history) == 2
            assert history[0].text == written[picture.id]
            assert history[1].details["seed"] > 0
        else:
            assert picture.caption == written[picture.id]
    assert visitor.errors == []


def test_variations_are_drawn_by_the_real_job_and_join_when_accepted(dashboard, visit, dataset, workspace):
    small = {"steps": 2, "width": 128, "height": 128, "vary_pictures": "1,2"}
    drafts.save(workspace, "vary", {"model": {"base": "flux-mini"}, "generate": small})
    visitor = visit(dashboard(), height=1400).go("datasets?dataset=photographs&tab=Variations")
    page = visitor.page
    visitor.click("Draw 2 variations").sees("Waiting for your word (2)", role="heading", seconds=180).settled()
    page.wait_for_function(
        "[...document.querySelectorAll('.ll-picture img')].filter(picture => picture.naturalWidth > 0).length === 4"
    )
    second, first = variations.listed(dataset, "waiting")
    visitor.press(f"vary.accept.{first.id}").sees("Waiting for your word (1)", role="heading").settled()
    visitor.press(f"vary.reject.{second.id}").sees("Decided (2)").settled()
    (joined,) = [picture for picture in dataset.pictures() if picture.author == "variation"]
    assert (joined.caption, joined.width) == (dataset.picture(1).caption, 128)
    page.get_by_text("Decided (2)").click()
    visitor.press(f"vary.back.{first.id}").sees("Waiting for your word (1)", role="heading").settled()
    assert len(dataset.pictures()) == 6
    assert dataset.picture(joined.id).aside
    assert visitor.errors == []
    assert visitor.strangers == []
