"""Import and look through a dataset."""

import io
import json
import zipfile
from dataclasses import replace

import pytest
from PIL import Image, ImageFilter

from lora_lightning.datasets import focus, variations
from lora_lightning.datasets.aside import set_aside
from lora_lightning.datasets.buckets import choose, crop_box
from lora_lightning.datasets.images import open_rgb
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.measures import measure_all
from lora_lightning.datasets.store import Dataset
from lora_lightning.ui import crops, drafts


def packed(photos, **extra: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in photos:
            archive.write(path, path.name)
        for name, content in extra.items():
            archive.writestr(name.replace("_", "."), content)
    return buffer.getvalue()


def upload(page, name, data):
    page.text_input(key="import.name").set_value(name)
    page.file_uploader(key="import.uploads.0").upload("pictures.zip", data, "application/zip").run()
    import_button(page).click().run()
    assert not page.exception


def import_button(page):
    return next(button for button in page.button if button.label == "Import")


def test_an_uploaded_zip_becomes_a_dataset_and_every_file_is_accounted_for(open_page, workspace, photos, texts):
    page = open_page("datasets")
    captions = json.dumps({"captions": {photos[0].name: "an astronaut", "absent.png": "nobody"}}).encode()
    upload(page, "mine", packed(photos[:3], broken_png=b"no picture", captions_json=captions))
    made = Dataset.open(workspace.dataset("mine"))
    assert len(made.pictures()) == 3
    said = texts(page)
    assert "Imported" in said
    assert "3 pictures with 1 caption, 2 files left out" in said
    assert {"broken.png", "captions.json: absent.png"} == set(page.dataframe[0].value["File"])
    assert "Caption 2 pictures" in said
    assert not list(workspace.home.glob(".upload-*"))


def test_what_is_no_zip_is_a_card_and_nothing_is_left(open_page, workspace, texts):
    page = open_page("datasets")
    upload(page, "mine", b"this is no archive")
    assert "pictures.zip" in texts(page)
    assert page.error
    assert workspace.dataset_names() == []
    assert not list(workspace.home.glob(".upload-*"))


def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_copied(open_page, workspace, photos, texts):
    page = open_page("datasets")
    upload(page, "../x", packed(photos[:1]))
    assert "cannot be used" in texts(page)
    assert not workspace.home.exists()


def test_a_folder_of_this_machine_is_imported(open_page, workspace, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (320, 200), "teal").save(folder / "sea.png")
    page = open_page("datasets")
    page.text_input(key="import.name").set_value("sea")
    page.segmented_control(key="import.way").set_value("On this machine").run()
    page.text_input(key="import.folder").set_value(str(folder)).run()
    import_button(page).click().run()
    assert [picture.name for picture in Dataset.open(workspace.dataset("sea")).pictures()] == ["sea.png"]


def test_a_dataset_shows_its_figures_and_its_pictures_by_address(open_page, dataset, texts):
    page = open_page("datasets", dataset="photographs")
    assert [metric.value for metric in page.metric][:2] == ["3", "2"]
    gallery = next(
        html.proto.body for html in page.get("html") if "ll-grid" in html.proto.body and "<img" in html.proto.body
    )
    assert gallery.count("<img") == 3
    assert all(f"/thumbs/photographs/{picture.file}" in gallery for picture in dataset.pictures())
    assert "an astronaut in orange" in gallery


def test_the_next_step_opens_the_captions_of_this_dataset(open_page, dataset):
    page = open_page("datasets", dataset="photographs")
    next(button for button in page.button if button.label == "Caption 1 picture").click().run()
    assert not page.exception
    assert (page.title[0].value, page.query_params["dataset"]) == ("Captions", "photographs")


def test_the_captions_table_tells_which_picture_has_none(open_page, dataset):
    table = open_page("datasets", dataset="photographs", tab="Captions").dataframe[0].value
    assert sorted(table["Matched"]) == ["✓ yes", "✓ yes", "✗ no caption"]


def test_the_three_seed_files_are_made_and_linked(open_page, workspace, dataset, texts):
    page = open_page("datasets", dataset="photographs", tab="Export")
    page.button(key="export.make").click().run()
    assert "read back without a difference" in texts(page)
    made = {path.name for path in (workspace.home / "exports" / "photographs").iterdir()}
    assert made == {f"photographs_{end}" for end in ("captions.txt", "captions.json", "processed_images.zip")}
    assert all(f"/files/exports/photographs/{name}" in texts(page) for name in made)


def test_an_export_for_a_trainer_is_a_zip_and_the_next_one_leaves_it_alone(open_page, workspace, dataset, texts):
    page = open_page("datasets", dataset="photographs", tab="Export")
    page.selectbox(key="export.format").set_value("kohya").run()
    for _ in range(2):
        page.button(key="export.make").click().run()
        assert not page.exception
    assert "1 of 3 pictures have no caption" in texts(page)
    folder = workspace.home / "exports" / "photographs"
    names = {path.name for path in folder.iterdir()}
    assert names == {f"photographs-kohya{end}" for end in ("", ".zip", "-2", "-2.zip")}
    with zipfile.ZipFile(folder / "photographs-kohya.zip") as archive:
        assert "photographs-kohya/dataset.toml" in archive.namelist()
    assert "/files/exports/photographs/photographs-kohya-2.zip" in texts(page)


def test_a_push_without_a_login_says_what_to_do(open_page, dataset, texts, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("lora_lightning.publish.hub.get_token", lambda: None)
    page = open_page("datasets", dataset="photographs", tab="Export")
    page.text_input(key="export.repo").set_value("me/photographs").run()
    page.button(key="export.push").click().run()
    assert "hf auth login" in texts(page)


def test_the_background_of_transparent_pictures_is_chosen_at_the_import(open_page, workspace, tmp_path):
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    page = open_page("datasets")
    page.text_input(key="import.name").set_value("clear")
    page.color_picker(key="import.background").set_value("#336699")
    page.segmented_control(key="import.way").set_value("On this machine").run()
    page.text_input(key="import.folder").set_value(str(tmp_path / "clear.png")).run()
    import_button(page).click().run()
    made = Dataset.open(workspace.dataset("clear"))
    assert open_rgb(made.path(made.pictures()[0])).getpixel((5, 5)) == (0x33, 0x66, 0x99)


def test_text_from_outside_stays_text(open_page, dataset):
    first = dataset.pictures()[0]
    dataset.write_caption(first.id, "<script>alert(1)</script>", author="human")
    page = open_page("datasets", dataset="photographs")
    bodies = "".join(html.proto.body for html in page.get("html"))
    assert "<script>" not in bodies
    assert "&lt;script&gt;" in bodies


@pytest.fixture
def messy(workspace, photos, tmp_path) -> Dataset:
    """Three photographs, a small copy of the first with the only caption, and the second out of focus."""
    with Image.open(photos[0]) as astronaut:
        astronaut.resize((300, 300)).save(tmp_path / "copy.jpg", quality=80)
    with Image.open(photos[8]) as gravel:
        gravel.rotate(90).filter(ImageFilter.GaussianBlur(3)).save(tmp_path / "blurred.png")
    sources = [photos[0], photos[5], photos[8], tmp_path / "copy.jpg", tmp_path / "blurred.png"]
    import_sources(workspace, "messy", sources)
    made = Dataset.open(workspace.dataset("messy"))
    made.write_caption(named(made, "copy.jpg").id, "an astronaut in orange", author="human")
    return made


def named(dataset, name):
    return next(picture for picture in dataset.pictures(include_aside=True) if picture.name == name)


@pytest.fixture
def checked(open_page, messy):
    """The tab after its button was clicked."""
    page = open_page("datasets", dataset="messy", tab="Check pictures")
    page.button(key="triage.check").click().run()
    assert not page.exception, page.exception[0].message
    return page


def test_pictures_are_measured_only_when_asked(open_page, messy, texts):
    page = open_page("datasets", dataset="messy", tab="Check pictures")
    assert page.button(key="triage.check").label == "Check 5 pictures"
    assert "Near duplicates" not in texts(page)


def test_findings_come_by_kind_with_reason_and_suggestion(checked, texts):
    titles = [each.value for each in checked.subheader]
    assert titles[0] == "Near duplicates (1 group)"
    assert {"Blurred (1)", "Too small (1)"} <= set(titles)
    assert "Set it aside, unless the blur is meant" in texts(checked)
    pictures = "".join(html.proto.body for html in checked.get("html"))
    assert "blurred: sharpness" in pictures
    assert "would be upscaled 1.7x for 512 pixels" in pictures
    assert all(button.key != "triage.check" for button in checked.button)


def test_another_resolution_is_judged_without_measuring_again(checked):
    checked.selectbox(key="triage.resolution").set_value(1024).run()
    assert any(title.value == "Too small (5)" for title in checked.subheader)


def test_the_best_of_a_group_is_kept_and_the_rest_comes_back(checked, messy, texts):
    best, copy = named(messy, "astronaut.png"), named(messy, "copy.jpg")
    ticks = {box.key: box.value for box in checked.checkbox}
    assert ticks == {
        f"triage.tick.messy.{best.id}.True": False,
        f"triage.tick.messy.{copy.id}.False": True,
    }
    checked.button(key=f"triage.aside.{best.id}").click().run()
    assert copy.id not in [picture.id for picture in messy.pictures()]
    assert "nearly the same as astronaut.png" in named(messy, "copy.jpg").aside
    assert checked.metric[0].value == "4"
    assert "Set aside (1)" in [each.value for each in checked.subheader]
    assert messy.path(copy).is_file()
    checked.button(key=f"triage.back.{copy.id}").click().run()
    assert len(messy.pictures()) == 5
    assert "Near duplicates (1 group)" in [each.value for each in checked.subheader]


def test_nothing_is_set_aside_while_nothing_is_ticked(checked, messy):
    best, copy = named(messy, "astronaut.png"), named(messy, "copy.jpg")
    checked.checkbox(key=f"triage.tick.messy.{copy.id}.False").uncheck().run()
    assert checked.button(key=f"triage.aside.{best.id}").disabled


def test_the_better_caption_of_a_group_is_copied_to_the_best_picture(checked, messy):
    best = named(messy, "astronaut.png")
    button = checked.button(key=f"triage.copy.{best.id}")
    assert button.label == "Copy the caption of copy.jpg to astronaut.png"
    button.click().run()
    kept = named(messy, "astronaut.png")
    assert (kept.caption, kept.author) == ("an astronaut in orange", "human")


def test_a_whole_kind_is_set_aside_and_brought_back_at_once(checked, messy, open_page):
    checked.selectbox(key="triage.resolution").set_value(1024).run()
    checked.button(key="triage.all.small").click().run()
    assert not checked.exception
    assert messy.pictures() == []
    later = open_page("datasets", dataset="messy", tab="Check pictures")
    later.button(key="triage.back.all").click().run()
    assert len(messy.pictures()) == 5


def test_what_is_measured_once_is_known_ever_after(open_page, messy):
    measure_all(messy, messy.pictures()[:3])
    page = open_page("datasets", dataset="messy", tab="Check pictures")
    assert page.button(key="triage.check").label == "Check 2 pictures"
    page.button(key="triage.check").click().run()
    later = open_page("datasets", dataset="messy", tab="Check pictures")
    assert all(button.key != "triage.check" for button in later.button)
    assert "Near duplicates (1 group)" in [each.value for each in later.subheader]


def test_good_pictures_are_said_to_be_good(open_page, workspace, photos, texts):
    import_sources(workspace, "good", [photos[0]])
    page = open_page("datasets", dataset="good", tab="Check pictures")
    page.button(key="triage.check").click().run()
    assert "Nothing speaks against 1 picture" in texts(page)


def test_a_picture_that_cannot_be_read_is_a_card(open_page, messy, texts):
    messy.path(named(messy, "copy.jpg")).write_bytes(b"no picture")
    page = open_page("datasets", dataset="messy", tab="Check pictures")
    page.button(key="triage.check").click().run()
    assert not page.exception
    assert page.error
    assert page.button(key="triage.check").label == "Check 5 pictures"


def test_a_dataset_whose_pictures_are_all_set_aside_still_gives_them_back(open_page, dataset):
    set_aside(dataset, {picture.id: "a test" for picture in dataset.pictures()})
    page = open_page("datasets", dataset="photographs", tab="Check pictures")
    page.button(key="triage.back.all").click().run()
    assert len(dataset.pictures()) == 3


def test_crops_show_what_each_size_takes_and_follow_the_centre(open_page, dataset):
    page = open_page("datasets", dataset="photographs", tab="Crops")
    table = page.dataframe[0].value
    assert len(table) == 3
    shares = [int(text.rstrip("%")) for text in table["Cut off"]]
    assert shares == sorted(shares, reverse=True)
    first = named(dataset, table["Picture"][0])
    focus.move(dataset, first.id, 0.1, 0.9)
    again = open_page("datasets", dataset="photographs", tab="Crops").dataframe[0].value
    assert again["Centre"][0] == "10% across, 90% down"


def test_a_tile_has_the_very_cut_that_is_trained(workspace, dataset):
    picture = focus.move(dataset, dataset.pictures()[0].id, 0.0, 1.0)
    wide = replace(picture, width=1024, height=512)
    tile = crops._tile(workspace, dataset, wide, [256])
    (bucket,) = choose(1024, 512, [256])
    crop = crop_box(1024, 512, bucket, (0.0, 1.0))
    assert tile["boxes"] == [
        {
            "label": f"{bucket.width} x {bucket.height}",
            "left": 0.0,
            "top": crop.top / crop.resized_height,
            "width": bucket.width / crop.resized_width,
            "height": bucket.height / crop.resized_height,
        }
    ]
    assert crops.lost(wide, [256]) == pytest.approx(1 - tile["boxes"][0]["width"] * tile["boxes"][0]["height"])


def test_held_out_pictures_are_checked_for_copies_and_variations(open_page, workspace, messy, texts, tmp_path):
    drafts.save(workspace, "train", {"name": "x", "dataset": {"name": "messy", "validation_share": 0.4}})
    page = open_page("datasets", dataset="messy", tab="Check pictures")
    page.button(key="triage.check").click().run()
    assert "2 pictures held out for validation; none has a near duplicate" in texts(page)
    drafts.save(workspace, "train", {"name": "x", "dataset": {"name": "messy", "validation_share": 0.5}})
    for picture in messy.pictures():
        with Image.open(messy.path(picture)) as image:
            image.convert("RGB").rotate(90).resize((320, 320)).save(tmp_path / "turned.png")
        variations.lay_aside(messy, picture, tmp_path / "turned.png", "", {})
    variations.accept(workspace, messy, variations.listed(messy, "waiting"))
    page = open_page("datasets", dataset="messy", tab="Check pictures")
    page.button(key="triage.check").click().run()
    assert "Variations of held-out pictures are trained on" in texts(page)
