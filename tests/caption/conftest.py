import shutil

import pytest
import torch

from lora_lightning import recipe
from lora_lightning.caption import job
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.runs.job import perform, reserve
from lora_lightning.workspace import Workspace
from tests.publish.conftest import hub  # noqa: F401 - a fixture

PHOTOS = ("camera.png", "chelsea.png", "coffee.png", "coins.png", "rocket.jpg")


def described(captioner, requests, size=4):
    """The answers of a streaming captioner, in the order of the requests."""
    stream = captioner.stream(size)
    for key, request in enumerate(requests):
        stream.put(key, request)
    told = {}
    while stream.keys:
        told |= {each.key: each.answer for each in stream.step()}
    stream.close()
    return [told[key] for key in range(len(requests))]


@pytest.fixture(scope="session")
def captioner(tiny_captioner):
    from lora_lightning.caption.captioners.llava import build

    return build(tiny_captioner, torch.device("cpu"))


@pytest.fixture(scope="session")
def imported(photos, tmp_path_factory):
    """A workspace with five photographs in dataset `photos`, to copy from."""
    workspace = Workspace.find(tmp_path_factory.mktemp("imported"))
    import_sources(workspace, "photos", [photo for photo in photos if photo.name in PHOTOS])
    return workspace


@pytest.fixture
def dataset(imported, workspace):
    shutil.copytree(imported.dataset("photos"), workspace.dataset("photos"))
    return Dataset.open(workspace.dataset("photos"))


@pytest.fixture
def make_recipe(tiny_captioner):
    def make(**caption):
        settings = {"captioner": str(tiny_captioner), "max_tokens": 6, "batch_size": 2} | caption
        top = {name: settings.pop(name) for name in ("trigger", "seed") if name in settings}
        return recipe.parse({"name": "described", "dataset": {"name": "photos"}, "caption": settings} | top)

    return make


@pytest.fixture
def caption(workspace, make_recipe):
    """Run the job in its real frame, in this process."""

    def run(watch=None, **settings):
        made = make_recipe(**settings)
        folder = reserve(workspace, "caption", made.name, made.to_yaml())

        def work(reporter):
            if watch:
                watch(reporter)
            return job.run(made, workspace, reporter)

        return perform(workspace, folder, work, needs_device=False)

    return run
