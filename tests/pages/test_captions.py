"""Edit captions without losing any."""

import pytest

from lora_lightning.ui.editor import matching


def box(page, dataset, place):
    picture = dataset.pictures()[place]
    return page.text_area(key=f"caption.photographs.{picture.id}.{picture.version}")


def test_leaving_a_box_saves_a_version_by_a_person(open_page, dataset, texts):
    page = open_page("captions", dataset="photographs")
    box(page, dataset, 0).set_value("an astronaut smiles").run()
    assert not page.exception
    picture = dataset.pictures()[0]
    assert (picture.caption, picture.author, picture.version) == ("an astronaut smiles", "human", 2)
    assert "✓ Saved" in texts(page)


def test_undo_brings_the_text_before_back(open_page, dataset):
    page = open_page("captions", dataset="photographs")
    box(page, dataset, 0).set_value("an astronaut smiles").run()
    picture = dataset.pictures()[0]
    page.button(key=f"caption.photographs.{picture.id}.{picture.version}.undo").click().run()
    assert dataset.pictures()[0].caption == "an astronaut in orange"
    assert box(page, dataset, 0).value == "an astronaut in orange"


@pytest.mark.parametrize(("button", "kept"), [("mine", "mine"), ("theirs", "theirs")])
def test_a_caption_that_changed_meanwhile_shows_both_texts(open_page, dataset, texts, button, kept):
    page = open_page("captions", dataset="photographs")
    written_in = box(page, dataset, 0)
    picture = dataset.pictures()[0]
    dataset.write_caption(picture.id, "theirs", author="captioner")
    written_in.set_value("mine").run()
    assert dataset.pictures()[0].caption == "theirs"
    assert "changed elsewhere" in texts(page)
    page.button(key=f"conflict.{picture.sha256}.{button}").click().run()
    assert dataset.pictures()[0].caption == kept
    assert "changed elsewhere" not in texts(page)


def test_the_filter_and_the_search_narrow_the_cards(dataset):
    pictures = dataset.pictures()
    names = {
        wanted: [each.name for each in matching(pictures, wanted, "")]
        for wanted in ("Without caption", "By a person", "By a machine")
    }
    assert names == {"Without caption": ["camera.png"], "By a person": ["brick.png"], "By a machine": ["astronaut.png"]}
    assert [each.name for each in matching(pictures, "All", "BRICKS")] == ["brick.png"]


def test_the_start_button_counts_what_the_captioner_would_write(open_page, dataset, texts):
    page = open_page("captions", dataset="photographs")
    assert "Caption 1 picture" in texts(page)
    page.toggle(key="caption.caption.replace").set_value(True).run()
    assert "Caption 2 pictures" in texts(page)


def test_a_working_captioner_shows_its_progress_and_cannot_be_started_twice(open_page, dataset, make_run, texts):
    make_run("photographs", "running", live=True, verb="caption", phase="captioning", done=1, total=3)
    page = open_page("captions", dataset="photographs")
    assert page.get("progress")[0].proto.text == "Captioning 1 of 3"
    assert next(button for button in page.button if button.label == "Caption 1 picture").disabled


def test_when_all_are_captioned_training_is_next(open_page, dataset, texts):
    dataset.write_caption(dataset.pictures()[2].id, "a man with a camera", author="human")
    assert "Train on this dataset" in texts(open_page("captions", dataset="photographs"))
