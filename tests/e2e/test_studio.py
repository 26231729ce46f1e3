"""Captions and pictures put right by clicking: filter, replace many, undo, set a near duplicate aside and back."""

import re

import pytest
from PIL import Image
from playwright.sync_api import expect

from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


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
