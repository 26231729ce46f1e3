"""Pictures: too small, too few, without what should lie beside them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from lora_lightning.checks.machine import processes
from lora_lightning.checks.model import pipeline_of
from lora_lightning.checks.report import Estimate, Report, counted, example
from lora_lightning.datasets import alternates
from lora_lightning.datasets.buckets import Bucket, batches_per_epoch, beyond, tally
from lora_lightning.datasets.snapshot import take
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.errors import LoraLightningError
from lora_lightning.recipe import Recipe
from lora_lightning.train import beside
from lora_lightning.train.prompts import parse
from lora_lightning.train.split import FEWEST_HELD_OUT, FEWEST_TRAINED
from lora_lightning.train.texts import has_trigger
from lora_lightning.workspace import Workspace

FEW_TRAINED = 5
USUAL_STEPS = (30, 200)
"""Steps a picture: below, little is learned; beyond, pictures are learned by heart."""


Found = Mapping[str, Sequence[Picture]]
"""The pictures of each dataset by its name, the main one first."""


def find_all(recipe: Recipe, workspace: Workspace, report: Report) -> Found:
    """What a run learns from."""
    found = {recipe.dataset.name: find_pictures(recipe.dataset.name, workspace, report)}
    for each in recipe.dataset.further:
        found[each.name] = find_pictures(each.name, workspace, report, "dataset.further")
    return found


def find_pictures(name: str, workspace: Workspace, report: Report, where: str = "dataset.name") -> list[Picture]:
    """The pictures of a dataset; one that is not chosen, absent or empty is a blocker."""
    if not name:
        report.block(where, "no dataset is chosen", "import pictures, then set dataset.name")
        return []
    try:
        pictures = take(Dataset.open(workspace.dataset(name))).pictures
    except LoraLightningError as error:
        report.block(where, error.message, error.hint)
        return []
    if not pictures:
        report.block(where, f"dataset {name!r} holds no pictures", "import some")
    return pictures


def held_out(recipe: Recipe, count: int) -> int:
    """How many of so many pictures training will not see."""
    share = recipe.dataset.validation_share
    return max(FEWEST_HELD_OUT, round(share * count)) if share else 0


def steps_per_picture(recipe: Recipe, count: int) -> float:
    """How often each picture is seen, in whatever view and size."""
    seen = recipe.train.plan.steps * recipe.train.batch_size * recipe.train.accumulate * processes(recipe)
    return seen / max(1, count - held_out(recipe, count))


def estimates(recipe: Recipe, count: int) -> list[Estimate]:
    """How often each of so many pictures is seen."""
    each, train = steps_per_picture(recipe, count), recipe.train
    a_step, trained = train.batch_size * train.accumulate * processes(recipe), count - held_out(recipe, count)
    told = (
        f"{train.plan.steps:,} steps of {a_step} on {trained} pictures; {USUAL_STEPS[0]} to {USUAL_STEPS[1]} are usual"
    )
    return [Estimate("steps a picture", f"{each:.0f}", told, each, "steps")]


def check_pictures(recipe: Recipe, found: Found, workspace: Workspace, report: Report) -> None:
    """Everything about the pictures that can be seen without opening them."""
    pictures = [picture for there in found.values() for picture in there]
    if not pictures:
        return
    _sizes(recipe, pictures, report)
    _batches(recipe, found, report)
    _share(recipe, len(pictures), report)
    _steps(recipe, len(pictures), report)
    folders = {workspace.dataset(name): there for name, there in found.items() if there}
    for folder, there in folders.items():
        _beside(recipe, there, folder, report)
    _samples(recipe, folders, report)
    _fields(recipe, list(folders), report)


def check_regularisation(recipe: Recipe, workspace: Workspace, report: Report) -> None:
    """A regularisation set that is absent, is the dataset itself, or teaches the trigger word."""
    name, where = recipe.dataset.regularisation, "dataset.regularisation"
    if not name:
        return
    if name in {each.name for each in recipe.dataset.chosen}:
        report.block(where, f"{name!r} is learned itself", "give pictures of the class without the subject")
        return
    try:
        pictures = Dataset.open(workspace.dataset(name)).pictures()
    except LoraLightningError as error:
        report.block(where, error.message, error.hint)
        return
    told = [picture.name for picture in pictures if recipe.trigger and has_trigger(picture.caption, recipe.trigger)]
    if told:
        problem = f"{counted(len(told), 'caption')} of {name!r} with the trigger word {recipe.trigger!r}{example(told)}"
        report.warn(where, problem, "take it out there: it would be learned from them")


def _sizes(recipe: Recipe, pictures: Sequence[Picture], report: Report) -> None:
    """Pictures without enough pixels, and resolutions that nothing is large enough for."""
    sides, where = recipe.dataset.resolutions, "dataset.resolutions"
    missed = {size: beyond(*size, sides) for size in {(picture.width, picture.height) for picture in pictures}}
    small = [picture for picture in pictures if len(missed[picture.width, picture.height]) == len(sides)]
    names = [f"{picture.name} ({picture.width} x {picture.height})" for picture in small]
    if recipe.dataset.enlarge:
        enlarged = sum(bool(missed[picture.width, picture.height]) for picture in pictures)
        if enlarged:
            told = counted(enlarged, "picture", "enlarged, and blurred by it")
            report.warn("dataset.enlarge", told, "set dataset.enlarge=false, or lower dataset.resolutions")
        return
    if small:
        told = f"{counted(len(small), 'picture', f'below {sides[0]} x {sides[0]}')}{example(names)}"
        report.warn(where, told, "these train at their own size; add larger ones or a lower resolution")
    unreached = [side for side in sides if all(side in each for each in missed.values())]
    if unreached and len(small) < len(pictures):
        told = f"no picture is large enough for {' and '.join(map(str, unreached))}, so nothing trains at that size"
        report.warn(where, told, "take it out, or add larger pictures")


def _batches(recipe: Recipe, found: Found, report: Report) -> None:
    """Batches hold one size, so that many sizes leave them half empty."""
    batch = recipe.train.batch_size * processes(recipe)
    counts: Counter[Bucket] = Counter()
    for each in recipe.dataset.chosen:
        sizes = [(picture.width, picture.height) for picture in found[each.name]]
        data = recipe.dataset
        counts += tally(sizes, data.resolutions, enlarge=data.enlarge, repeats=each.repeats)
    mean = counts.total() / batches_per_epoch(counts.values(), batch)
    if mean < batch / 2:
        told = f"a batch holds {mean:.1f} pictures on average: {len(counts)} sizes share {counts.total()}"
        hint = f"set train.batch_size=1 train.accumulate={batch * recipe.train.accumulate}, or fewer resolutions"
        report.warn("train.batch_size", told, hint)


def _share(recipe: Recipe, count: int, report: Report) -> None:
    where, left = "dataset.validation_share", count - held_out(recipe, count)
    if recipe.dataset.validation_share and left < FEW_TRAINED:
        told = f"{held_out(recipe, count)} of {counted(count, 'picture')} would be held out, {max(0, left)} trained on"
        (report.block if left < FEWEST_TRAINED else report.warn)(where, told, "add pictures, or set it to 0")


def _steps(recipe: Recipe, count: int, report: Report) -> None:
    low, high = USUAL_STEPS
    each = steps_per_picture(recipe, count)
    if not low <= each <= high:
        effect = "little is learned" if each < low else "pictures are learned by heart"
        good = round(recipe.train.plan.steps * (60 / each))
        told = f"each picture is seen {each:.0f} times, where {low} to {high} are usual: {effect}"
        report.warn("train.steps", told, f"set train.steps={max(1, good)} for about 60, or change the pictures")


def _beside(recipe: Recipe, pictures: Sequence[Picture], folder: Path, report: Report) -> None:
    """Masks and references that are not there."""

    def without(name: str) -> list[str]:
        found = {picture.file for picture, _ in beside.pairs(pictures, folder, name)}
        return [picture.name for picture in pictures if picture.file not in found]

    if recipe.dataset.masks == "folder" and (bare := without(beside.MASKS)):
        told = f"{counted(len(bare), 'picture')} without a mask in {folder / beside.MASKS}{example(bare)}"
        report.warn("dataset.masks", told, "these are learned whole")
    if recipe.dataset.references and (bare := without(beside.REFERENCES)):
        told = f"{counted(len(bare), 'picture')} without a reference in {folder / beside.REFERENCES}{example(bare)}"
        report.block("dataset.references", told, "put the pictures before the edit there, or set it to false")


def _samples(recipe: Recipe, folders: Mapping[Path, Sequence[Picture]], report: Report) -> None:
    """References of sample prompts that are nowhere, or that this model does not look at."""
    asked = [wanted for prompt in recipe.sample.prompts if (wanted := parse(prompt).reference)]
    if asked and pipeline_of(recipe.model.base) == "FluxPipeline":
        told = f"{recipe.model.base} edits no picture, so these samples are drawn without their reference"
        report.warn("sample.prompts", told, "set model.base=kontext or a FLUX.2 model")
        return
    there = {Path(picture.name).stem for folder, pictures in folders.items() if recipe.dataset.references
             for picture, _ in beside.pairs(pictures, folder, beside.REFERENCES)}  # fmt: skip
    for wanted in asked:
        if not Path(wanted).expanduser().is_file() and not {wanted, Path(wanted).stem} & there:
            hint = "name a file, or a picture of the dataset that has a reference"
            report.block("sample.prompts", f"there is no reference {wanted}", hint)


def _fields(recipe: Recipe, folders: Sequence[Path], report: Report) -> None:
    """Fields that these datasets give nothing to do."""
    data = recipe.dataset
    if data.all_captions and not any(alternates.current(Dataset.open(folder)) for folder in folders):
        report.warn("dataset.all_captions", "no picture has a further caption", "set it to false, or write some")
    if data.repeats > 1 and not data.regularisation and not data.further:
        told = "repeats matter only beside another dataset: train.steps says how long training takes"
        report.warn("dataset.repeats", told, "set dataset.repeats=1")
