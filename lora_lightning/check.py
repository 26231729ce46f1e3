"""`check`: everything that could stop or spoil a run, found at once and without loading a weight."""

from lora_lightning.checks import captions, forecast, machine, model, others, pace, pictures, training
from lora_lightning.checks.report import Report as Report
from lora_lightning.recipe import Recipe
from lora_lightning.runs.folder import RunFolder
from lora_lightning.workspace import Workspace


def check(recipe: Recipe, workspace: Workspace, verb: str = "train") -> Report:
    """Every problem that a step would meet in its dataset, its models and this machine."""
    report = Report()
    if verb == "train":
        _train(recipe, workspace, report)
    elif verb == "caption":
        pictures.find_pictures(recipe.dataset.name, workspace, report)
        others.check_captioning(recipe, report)
    elif verb == "generate":
        others.check_generate(recipe, workspace, report)
    elif verb == "evaluate":
        others.check_lora(recipe.name, workspace, report)
    elif verb == "publish":
        others.check_publish(recipe, workspace, report)
    if verb in ("train", "evaluate", "generate"):
        model.check_base(recipe.model.base, report, recipe.model.files.model_dump())
        machine.check_gpu(recipe.model.base, report)
    machine.check_disk(workspace, report)
    return report


def _train(recipe: Recipe, workspace: Workspace, report: Report) -> None:
    _check_name_free(recipe, workspace, report)
    by_name = pictures.find_all(recipe, workspace, report)
    found = [picture for there in by_name.values() for picture in there]
    captions.check_captions(recipe, found, report)
    captions.check_sample_prompts(recipe, report)
    pictures.check_pictures(recipe, by_name, workspace, report)
    pictures.check_regularisation(recipe, workspace, report)
    training.check_training(recipe, report)
    model.check_adapter(recipe, report)
    model.check_start(recipe, workspace, report)
    model.check_purpose(recipe, report)
    machine.check_arithmetic(recipe, report)
    machine.check_overridden(recipe, report)
    machine.check_devices(recipe, report)
    if found:
        report.estimates += [*pictures.estimates(recipe, len(found)), pace.time_of(recipe, workspace, found)]
        forecast.forecast(recipe, found, workspace, report)


def _check_name_free(recipe: Recipe, workspace: Workspace, report: Report) -> None:
    """A name that a run or a finished LoRA has already."""
    run = RunFolder(workspace.run(recipe.name))
    if run.path.exists():
        state = run.status().state
        report.block(
            "name", f"run {recipe.name!r} exists already ({state})", "resume or clone it, or choose another name"
        )
    elif workspace.lora(recipe.name).exists():
        report.block("name", f"a LoRA {recipe.name!r} exists already", "choose another name")
