"""A dataset of three photographs, a short recipe on a tiny model, and the job in its frame."""

import shutil

import pytest
import torch

from lora_lightning.datasets.importing import import_sources
from lora_lightning.recipe import parse
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.job import perform, reserve
from lora_lightning.train import job
from lora_lightning.workspace import Workspace


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def imported(tmp_path_factory, photos):
    """A workspace with the dataset `pictures`: two of its three photographs have captions."""
    workspace = Workspace.find(tmp_path_factory.mktemp("imported"))
    captions = tmp_path_factory.mktemp("captions")
    (captions / "chelsea.txt").write_text("TOK, a cat")
    (captions / "coffee.txt").write_text("a cup of coffee")
    wanted = [photo for photo in photos if photo.stem in ("chelsea", "coffee", "astronaut")]
    import_sources(workspace, "pictures", [*wanted, *sorted(captions.glob("*.txt"))])
    return workspace


@pytest.fixture
def home(workspace, imported):
    """The test's own workspace, with that dataset."""
    shutil.copytree(imported.datasets, workspace.datasets)
    return workspace


@pytest.fixture
def recipe(tiny_flux):
    """A recipe of a few steps in fp32, changed by `section.field=value`."""

    def build(*overrides):
        values = {
            "name": "short",
            "trigger": "TOK",
            "model": {"base": str(tiny_flux)},
            "dataset": {"name": "pictures", "resolutions": [64]},
            "lora": {"rank": 4},
            "train": {
                "steps": 6,
                "learning_rate": 1e-3,
                "optimizer": "adamw",
                "precision": "32-true",
                "gradient_checkpointing": False,
                "checkpoint_every": 3,
                "sample_every": 0,
            },
            "sample": {"prompts": ["TOK, a dog"], "width": 64, "height": 64, "steps": 2},
        }
        return parse(values, overrides)

    return build


@pytest.fixture
def train(home):
    """Train as the command line does: a new run, or the same one again."""

    def run(recipe, workspace=home):
        folder = RunFolder(workspace.run(recipe.name))
        if not folder.recipe_path.is_file():
            folder = reserve(workspace, "train", recipe.name, recipe.to_yaml())
        return perform(workspace, folder, lambda reporter: job.run(recipe, workspace, reporter))

    return run


@pytest.fixture(scope="session")
def toy(tiny_flux, tmp_path_factory):
    """A training whose steps take milliseconds; see toy.py."""
    from lora_lightning.models.base import open_family
    from tests.train.toy import Toy, items

    family = open_family(str(tiny_flux), device=torch.device("cpu"), dtype=torch.float32)
    return Toy(family, items(tmp_path_factory.mktemp("toy")))
