"""The whole workflow by clicking: import, caption, edit, train, watch, stop, resume, generate, publish."""

import os
import re
import time
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import expect

from lora_lightning.datasets.store import Dataset
from lora_lightning.runs.folder import RunFolder
from tests.publish.hub_server import WRITE_TOKEN

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]

SHOTS = Path(os.environ.get("SCREENSHOTS", "screenshots"))


@pytest.fixture
def shoot():
    """Keep a picture of what is on the screen, numbered in the order of the work."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    taken = []

    def shot(visitor, name):
        taken.append(name)
        visitor.page.screenshot(path=str(SHOTS / f"workflow-{len(taken):02d}-{name}.png"))

    return shot


def to(hub) -> dict[str, str]:
    """The environment in which the Hub of this test is the only one, with somebody logged in who may write."""
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": WRITE_TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}


def pack(photos, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for photo in photos:
            archive.write(photo, photo.name)
    return path


def test_from_photographs_to_the_hub(
    dashboard, visit, workspace, photos, tiny_flux, tiny_captioner, tmp_path, shoot, hub
):
    visitor = visit(dashboard(**to(hub)), height=1100).go("")
    visitor.click("Import pictures").sees("There is no dataset yet")
    visitor.fill("import.name", "photographs")
    visitor.page.set_input_files("input[type=file]", str(pack(photos, tmp_path / "photographs.zip")))
    expect(visitor.page.get_by_role("button", name="Import", exact=True)).to_be_enabled()
    visitor.page.get_by_role("button", name="Import", exact=True).click()
    visitor.sees("14 pictures with 0 captions").settled()
    shoot(visitor, "imported")

    visitor.click("Caption 14 pictures").sees("Captions", role="heading").settled()
    visitor.fill("caption.caption.captioner", str(tiny_captioner))
    visitor.page.locator(".st-key-caption-more summary").click()
    visitor.fill("caption.caption.max_tokens", "12")
    visitor.click("Caption 14 pictures")
    visitor.sees("Train on this dataset", seconds=240).settled()
    dataset = Dataset.open(workspace.dataset("photographs"))
    assert all(picture.caption for picture in dataset.pictures())
    first = visitor.page.locator("textarea[aria-label='astronaut.png']")
    first.fill("an astronaut in front of a shuttle, MYSTYLE")
    first.press("Tab")
    visitor.sees(re.compile("✓ Saved")).settled()
    assert dataset.pictures()[0].author == "human"
    shoot(visitor, "captions")

    visitor.click("Train on this dataset").sees("Train", role="heading").settled()
    _small_recipe(visitor, tiny_flux)
    shoot(visitor, "train")
    visitor.click("Start training").sees("my-style", role="heading").settled()
    run = RunFolder(workspace.run("my-style"))
    visitor.sees(re.compile("Training [0-9]+ of 600"), seconds=180).sees("Loss", role="heading").settled()
    shoot(visitor, "run")

    visitor.menu("TensorBoard")
    board = visitor.page.frame_locator("iframe[src*='/tb/']")
    expect(board.get_by_text("my-style/tb").first).to_be_visible(timeout=60_000)
    expect(board.get_by_text(re.compile("loss")).first).to_be_visible(timeout=60_000)
    shoot(visitor, "tensorboard")

    visitor.menu("Runs").press("runs.my-style.stop")
    _until(run, "stopped")
    visitor.sees("Stopped").settled()
    done = run.status().done
    assert 0 < done < 600
    assert list(run.checkpoints.iterdir())
    shoot(visitor, "stopped")
    visitor.press("runs.my-style.resume")
    _until(run, "completed", since="running")
    assert max(row["step"] for row in run.metrics()) == 600
    visitor.page.get_by_role("link", name="my-style").first.click()
    visitor.sees("The LoRA is finished").settled()
    shoot(visitor, "finished")

    visitor.click("Generate pictures").sees("Generate", role="heading").settled()
    visitor.fill("generate.generate.prompts", "a lighthouse, MYSTYLE").click("Insert").settled()
    expect(visitor.page.get_by_role("textbox", name="Prompts")).to_have_value("a lighthouse, MYSTYLE <lora:my-style:1>")
    visitor.fill("generate.model.base", str(tiny_flux)).fill("generate.generate.steps", "2")
    visitor.fill("generate.generate.width", "64").fill("generate.generate.height", "64")
    visitor.click("Draw 1 picture")
    picture = visitor.page.locator(".ll-grid img").first
    picture.wait_for(timeout=180_000)
    visitor.page.wait_for_function("document.querySelector('.ll-grid img').naturalWidth == 64")
    shoot(visitor, "generated")

    visitor.menu("Publish").fill("publish.publish.repo", "tester/my-style").click("Push to the Hub")
    visitor.sees(f"{hub.url}/tester/my-style", seconds=180).settled()
    pushed = hub.repo("tester/my-style")
    assert pushed.meta["private"] is True
    assert (pushed.files / "my-style.safetensors").read_bytes() == workspace.lora("my-style").read_bytes()
    shoot(visitor, "published")
    assert visitor.errors == []
    assert visitor.strangers == []


def _until(run: RunFolder, state: str, since: str = "") -> None:
    """Wait for the run to be in a state, after it has been in another if one is named."""
    for wanted in filter(None, (since, state)):
        deadline = time.monotonic() + 600
        while (now := run.status().state) != wanted and time.monotonic() < deadline:
            assert now not in ("failed", "interrupted"), run.status()
            time.sleep(0.1)
        assert run.status().state == wanted or wanted == since, run.status()


def _small_recipe(visitor, tiny_flux: Path) -> None:
    """What the tiny model can learn in a minute on two cores."""
    visitor.fill("train.model.base", str(tiny_flux)).fill("train.train.steps", "600")
    visitor.fill("train.sample.prompts", "a lighthouse, MYSTYLE")
    visitor.page.get_by_text("Advanced", exact=True).click()
    visitor.settled()
    for section in ("Dataset", "Samples"):
        visitor.page.locator("[data-testid=stExpander] summary").filter(has_text=section).first.click()
    visitor.fill("train.dataset.resolutions", "64").fill("train.train.checkpoint_every", "100")
    visitor.fill("train.train.sample_every", "300").fill("train.sample.steps", "2")
    visitor.fill("train.sample.width", "64").fill("train.sample.height", "64")
    visitor.sees("Ready to start")
