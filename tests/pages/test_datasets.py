"""Import and look through a dataset."""

import io
import json
import zipfile

from PIL import Image

from lora_lightning.datasets.store import Dataset


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
    page.button[0].click().run()
    assert not page.exception


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
    page.text_input(key="import.folder").set_value(str(folder)).run()
    page.button[0].click().run()
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
    next(button for button in page.button if button.label == "Make the files").click().run()
    made = {path.name for path in (workspace.home / "exports" / "photographs").iterdir()}
    assert made == {f"photographs_{end}" for end in ("captions.txt", "captions.json", "processed_images.zip")}
    assert all(f"/files/exports/photographs/{name}" in texts(page) for name in made)


def test_text_from_outside_stays_text(open_page, dataset):
    first = dataset.pictures()[0]
    dataset.write_caption(first.id, "<script>alert(1)</script>", author="human")
    page = open_page("datasets", dataset="photographs")
    bodies = "".join(html.proto.body for html in page.get("html"))
    assert "<script>" not in bodies
    assert "&lt;script&gt;" in bodies
