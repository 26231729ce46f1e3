import pytest

from lora_lightning import recipe
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset


@pytest.fixture
def pictures(workspace, photos):
    import_sources(workspace, "pictures", photos[:3])
    return Dataset.open(workspace.dataset("pictures"))


@pytest.fixture
def write_captions():
    def write(dataset, *texts):
        for picture, text in zip(dataset.pictures(), texts, strict=True):
            dataset.write_caption(picture.id, text, author="human")

    return write


@pytest.fixture
def ready(pictures, tiny_flux, write_captions):
    """A recipe and a dataset that nothing is wrong with, as a function of overrides."""
    write_captions(pictures, "ZXQ, a", "ZXQ, b", "ZXQ, c")

    def make(*overrides):
        values = {"name": "mine", "trigger": "ZXQ", "model": {"base": str(tiny_flux)}, "train": {"steps": 180}}
        return recipe.parse({**values, "dataset": {"name": "pictures", "resolutions": [64]}}, overrides)

    return make
