import shutil

import pytest

from lora_lightning import recipe
from lora_lightning.check import check
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset


@pytest.fixture
def pictures(workspace, photos):
    import_sources(workspace, "pictures", photos[:3])
    return Dataset.open(workspace.dataset("pictures"))


def made(tiny_flux, **changes):
    values = {"name": "mine", "trigger": "ZXQ", "model": {"base": str(tiny_flux)}, "dataset": {"name": "pictures"}}
    return recipe.parse(values | changes)


def where(problems):
    return [problem.where for problem in problems]


def test_a_ready_recipe_has_no_blockers(workspace, pictures, tiny_flux):
    for picture in pictures.pictures():
        pictures.write_caption(picture.id, "ZXQ, a photograph", author="human")
    report = check(made(tiny_flux, dataset={"name": "pictures", "resolutions": [64]}), workspace)
    assert (report.blockers, report.warnings) == ([], [])


def test_missing_captions_absent_trigger_and_small_pictures_warn(workspace, pictures, tiny_flux):
    pictures.write_caption(pictures.pictures()[0].id, "a photograph", author="human")
    report = check(made(tiny_flux, dataset={"name": "pictures", "resolutions": [2048]}), workspace)
    assert report.blockers == []
    assert where(report.warnings) == ["dataset.name", "trigger", "dataset.resolutions"]
    assert "2 pictures are" in report.warnings[0].message


@pytest.mark.parametrize(
    ("changes", "blocked"),
    [
        ({"dataset": {"name": "nothing"}}, ["dataset.name"]),
        ({"dataset": {"name": ""}}, ["dataset.name"]),
        ({"model": {"base": "/absent/model"}, "dataset": {"name": "nothing"}}, ["dataset.name", "model.base"]),
        ({"model": {"base": "flux-maxi"}}, ["model.base"]),
        ({"model": {"base": "schnell"}}, ["model.base"]),
    ],
)
def test_what_stops_a_run_is_named_with_a_way_out(workspace, pictures, tiny_flux, changes, blocked):
    report = check(made(tiny_flux, **changes), workspace)
    assert where(report.blockers) == blocked
    assert all(problem.hint for problem in report.blockers)


def test_an_incomplete_model_folder_names_what_is_missing(workspace, pictures, tiny_flux, tmp_path):
    folder = shutil.copytree(tiny_flux, tmp_path / "broken")
    shutil.rmtree(folder / "vae")
    report = check(made(tiny_flux, model={"base": str(folder)}), workspace)
    assert "vae/config.json" in report.blockers[0].message


def test_each_step_asks_for_what_it_needs(workspace, pictures, tiny_flux):
    mine = made(tiny_flux, caption={"captioner": "/absent/captioner"})
    assert where(check(mine, workspace, "caption").blockers) == ["caption.captioner"]
    assert where(check(mine, workspace, "generate").blockers) == ["generate.prompts"]
    assert where(check(mine, workspace, "publish").blockers) == ["publish.repo", "name"]
    assert where(check(mine, workspace, "evaluate").blockers) == ["name"]
    unknown = made(tiny_flux, generate={"prompts": ["x"], "loras": [{"name": "nobody"}]})
    assert where(check(unknown, workspace, "generate").blockers) == ["generate.loras"]
