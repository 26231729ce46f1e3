"""Variations are looked at beside their origins before they join a dataset, and can be taken back."""

import pytest
import yaml
from PIL import Image, ImageOps

from lora_lightning.datasets import variations
from lora_lightning.models.sampling import save_png
from lora_lightning.ui import variations as page_part


@pytest.fixture
def waiting(dataset, tmp_path):
    """A variation of each of three photographs, as `generate` leaves them."""
    facts = {"seed": "7", "strength": "0.5", "steps": "4", "guidance": "3.5", "model": "flux-mini"}
    for picture in dataset.pictures():
        with Image.open(dataset.path(picture)) as image:
            turned = ImageOps.mirror(image.convert("RGB")).resize((128, 128))
        drawn = save_png(turned, tmp_path / f"{picture.id}.png", facts)
        for _ in range(2):  # a run that was resumed says it again
            variations.lay_aside(dataset, picture, drawn, f"{picture.caption} again".strip(), facts)
    return variations.listed(dataset, "waiting")


@pytest.fixture
def tab(open_page):
    return lambda: open_page("datasets", dataset="photographs", tab="Variations")


def names(dataset):
    return [picture.name for picture in dataset.pictures()]


def test_an_accepted_variation_joins_with_where_it_came_from(tab, dataset, waiting, texts):
    page = tab()
    assert "Waiting for your word (3)" in [each.value for each in page.subheader]
    bodies = "".join(html.proto.body for html in page.get("html"))
    assert "/thumbs/photographs/" in bodies
    assert "/small/datasets/photographs/variations/" in bodies
    assert "strength 0.5, seed 7" in texts(page)
    before = names(dataset)
    astronaut = next(each for each in waiting if each.origin == 1)
    page.button(key=f"vary.accept.{astronaut.id}").click().run()
    assert not page.exception
    (joined,) = [picture for picture in dataset.pictures() if picture.name not in before]
    assert (joined.caption, joined.author, joined.width) == ("an astronaut in orange again", "variation", 128)
    details = dataset.history(joined.id)[0].details
    assert (details["variation_of"], details["strength"], details["seed"]) == ("astronaut.png", "0.5", "7")
    assert dataset.path(joined).read_bytes() == (variations.folder(dataset) / astronaut.file).read_bytes()
    assert "Waiting for your word (2)" in [each.value for each in page.subheader]


def test_what_was_decided_is_taken_back_and_accepted_again(tab, dataset, waiting):
    before = names(dataset)
    first, second, _ = waiting
    page = tab()
    page.button(key=f"vary.accept.{first.id}").click().run()
    page.button(key=f"vary.reject.{second.id}").click().run()
    assert [each.state for each in variations.listed(dataset, "accepted", "rejected")] == ["accepted", "rejected"]
    page.button(key=f"vary.back.{first.id}").click().run()
    page.button(key=f"vary.back.{second.id}").click().run()
    assert names(dataset) == before
    assert len(variations.listed(dataset, "waiting")) == 3
    dataset.write_caption(next(p.id for p in dataset.pictures(include_aside=True) if p.sha256 == first.sha256),
                          "by hand", author="human")  # fmt: skip
    page.button(key="vary.accept.all").click().run()
    assert not page.exception
    assert len(names(dataset)) == 6
    assert next(picture for picture in dataset.pictures() if picture.sha256 == first.sha256).caption == "by hand"


def test_all_are_rejected_and_no_file_is_lost(tab, dataset, waiting):
    page = tab()
    page.button(key="vary.reject.all").click().run()
    assert len(names(dataset)) == 3
    assert len(list(variations.folder(dataset).iterdir())) == 3
    assert variations.listed(dataset, "waiting") == []


def test_a_damaged_variation_does_not_join(tab, dataset, waiting, texts):
    (variations.folder(dataset) / waiting[0].file).write_bytes(b"\x89PNG\r\n\x1a\n")
    page = tab()
    page.button(key=f"vary.accept.{waiting[0].id}").click().run()
    assert len(names(dataset)) == 3
    assert waiting[0].file in texts(page)


def test_the_form_starts_the_job_with_the_pictures_of_its_filter(tab, dataset, workspace, monkeypatch):
    found = []
    monkeypatch.setattr(
        page_part.launch, "start", lambda _, verb, name, text: found.append((verb, yaml.safe_load(text)))
    )
    page = tab()
    page.text_input(key="vary.generate.vary_pictures").set_value("astronaut OR word:wall")
    page.number_input(key="vary.generate.images_per_prompt").set_value(2)
    page.run()
    button = page.button(key="vary.start")
    assert button.label == "Draw 4 variations"
    button.click().run()
    ((verb, job),) = found
    assert (verb, job["name"], job["generate"]["vary"]) == ("generate", "photographs-variations", "photographs")
    assert (job["generate"]["vary_pictures"], job["generate"]["strength"]) == ("astronaut OR word:wall", 0.6)
    page.text_input(key="vary.generate.vary_pictures").set_value("tokens>").run()
    assert "position" in " ".join(each.value + str(getattr(each, "title", "")) for each in page.error)
