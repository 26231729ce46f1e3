import re
import shutil

import pytest

from lora_lightning import recipe
from lora_lightning.check import check
from lora_lightning.errors import RecipeError


def made(tiny_flux, **changes):
    values = {"name": "mine", "trigger": "ZXQ", "model": {"base": str(tiny_flux)}, "dataset": {"name": "pictures"}}
    return recipe.parse(values | {"train": {"steps": 180}} | changes)


def where(problems):
    return [problem.where for problem in problems]


def test_a_ready_recipe_has_no_blockers(workspace, ready):
    report = check(ready(), workspace)
    assert (report.blockers, report.warnings) == ([], [])
    assert set(report.as_dict()) == {"blockers", "warnings", "estimates"}


def test_missing_captions_absent_trigger_and_small_pictures_warn(workspace, pictures, tiny_flux):
    pictures.write_caption(pictures.pictures()[0].id, "a photograph", author="human")
    report = check(made(tiny_flux, dataset={"name": "pictures", "resolutions": [2048]}), workspace)
    assert report.blockers == []
    assert where(report.warnings) == ["dataset.name", "trigger", "dataset.resolutions"]
    assert "2 pictures are without a caption" in report.warnings[0].message
    assert "1 caption lacks 'ZXQ'" in report.warnings[1].message
    assert "3 pictures are below 2048 x 2048" in report.warnings[2].message


@pytest.mark.parametrize(
    ("changes", "blocked"),
    [
        ({"dataset": {"name": "nothing"}}, ["dataset.name"]),
        ({"dataset": {"name": ""}}, ["dataset.name"]),
        ({"model": {"base": "/absent/model"}, "dataset": {"name": "nothing"}}, ["dataset.name", "model.base"]),
        ({"model": {"base": "flux-maxi"}}, ["model.base"]),
        ({"model": {"base": "schnell"}, "sample": {"steps": 4}}, ["model.training_adapter", "model.base"]),
        ({"dataset": {"name": "pictures", "regularisation": "pictures"}}, ["dataset.regularisation"]),
        ({"dataset": {"name": "pictures", "regularisation": "nothing"}}, ["dataset.regularisation"]),
        ({"dataset": {"name": "pictures", "further": ["nothing x 2"]}}, ["dataset.further"]),
        (
            {"model": {"base": "kontext"}, "sample": {"prompts": ["ZXQ --reference beach"]}},
            ["sample.prompts", "model.base"],
        ),
        ({"trigger": "", "train": {"preservation": 1.0}}, ["train.preservation"]),
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


def test_single_files_stand_in_for_weights_and_are_looked_at(workspace, pictures, tiny_flux, tmp_path):
    bare = shutil.copytree(tiny_flux, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    files = {name: str(tiny_flux / "vae" / "diffusion_pytorch_model.safetensors") for name in ("ae", "clip_l", "t5xxl")}
    (tmp_path / "page.safetensors").write_text("<html>")
    given = files | {"transformer": str(tmp_path / "page.safetensors"), "ae": "nowhere.safetensors"}
    report = check(made(tiny_flux, model={"base": str(bare), "files": given}), workspace)
    assert where(report.blockers) == ["model.files.transformer", "model.files.ae"]
    report = check(made(tiny_flux, model={"base": str(bare), "files": files}), workspace)
    assert where(report.blockers) == ["model.base"]
    assert "transformer/*.safetensors missing" in report.blockers[0].message


def test_a_lora_to_continue_from_and_a_rare_kind(workspace, pictures, tiny_flux):
    report = check(made(tiny_flux, lora={"kind": "lokr", "init_from": "nowhere"}), workspace)
    assert where(report.blockers) == ["lora.init_from"]
    assert "lora.kind" in where(report.warnings)


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"ranks": ["to_q"]}, "is not REGEX=RANK"),
        ({"ranks": ["to_q=0"]}, "is not REGEX=RANK"),
        ({"ranks": ["to_(q=4"]}, "is no regular expression"),
        ({"modules": "to_(q"}, "is no regular expression"),
        ({"kind": "lokr", "dropout": 0.1}, "dropout does not apply to lokr"),
        ({"kind": "loha", "rslora": True}, "rslora does not apply to loha"),
        ({"kind": "dora", "kohya_file": True}, "kohya_file does not apply to dora"),
        ({"factor": 4}, "factor does not apply to lora"),
    ],
)
def test_options_of_the_adapter_that_make_no_sense_are_refused(tiny_flux, lora, said):
    with pytest.raises(RecipeError, match=re.escape(said)):
        made(tiny_flux, lora=lora)
