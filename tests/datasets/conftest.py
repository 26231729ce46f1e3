"""Building blocks for datasets made of real files."""

import zipfile

import pytest
from PIL import Image

from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset


@pytest.fixture
def make_zip(tmp_path):
    """Write a ZIP from {name: bytes or Path}."""

    def make(members, name="pictures.zip"):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in members.items():
                archive.writestr(member, content if isinstance(content, str | bytes) else content.read_bytes())
        return path

    return make


@pytest.fixture
def dataset(workspace, photos) -> Dataset:
    """Three real photographs, the first of them captioned by an import."""
    import_sources(workspace, "trio", photos[:3])
    dataset = Dataset.open(workspace.dataset("trio"))
    dataset.write_caption(1, "an astronaut smiles", author="import")
    return dataset


@pytest.fixture(scope="session")
def small_photos(photos, tmp_path_factory):
    """Real photographs, 96 pixels wide, for tests that need speed and not size."""
    folder = tmp_path_factory.mktemp("small")
    made = []
    for photo in photos:
        with Image.open(photo) as image:
            image.convert("RGB").resize((96, 64)).save(folder / f"{photo.stem}.png")
        made.append(folder / f"{photo.stem}.png")
    return made
