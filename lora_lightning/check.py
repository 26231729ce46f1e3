"""`check`: everything that could stop or spoil a run, found at once and without loading a weight."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import constants, get_token, try_to_load_from_cache

from lora_lightning.caption.sources import resolve
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.errors import LoraLightningError, Problem
from lora_lightning.generate import library, prompt
from lora_lightning.models import config as models
from lora_lightning.models.source import missing_files
from lora_lightning.recipe import Recipe
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.gpu import gpus
from lora_lightning.workspace import Workspace

GIB = 2**30
BASE_HINT = "give dev, schnell, a diffusers folder, or a Hub id such as owner/name"


@dataclass
class Report:
    """Blockers stop the run; warnings say what it will do."""

    blockers: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def block(self, where: str, message: str, hint: str = "") -> None:
        """Add what stops the run."""
        self.blockers.append(Problem(where, message, hint))

    def warn(self, where: str, message: str, hint: str = "") -> None:
        """Add what the user should know before it starts."""
        self.warnings.append(Problem(where, message, hint))

    def as_dict(self) -> dict[str, object]:
        """The report of the command line's JSON."""
        return {
            "blockers": [vars(problem) for problem in self.blockers],
            "warnings": [vars(problem) for problem in self.warnings],
        }


def check(recipe: Recipe, workspace: Workspace, verb: str = "train") -> Report:
    """Every problem that a step would meet in its dataset, its models and this machine."""
    report = Report()
    if verb == "train":
        check_name_free(recipe, workspace, report)
        check_captions(recipe, check_dataset(recipe.dataset.name, workspace, report), report)
    elif verb == "caption":
        check_dataset(recipe.dataset.name, workspace, report)
        check_captioner(recipe.caption.captioner, report)
    elif verb == "generate":
        check_generate(recipe, workspace, report)
    elif verb == "evaluate":
        check_lora(recipe.name, workspace, report)
    elif verb == "publish":
        check_publish(recipe, workspace, report)
    if verb in ("train", "evaluate", "generate"):
        check_base(recipe.model.base, report)
        check_gpu(recipe.model.base, report)
    check_disk(workspace, report)
    return report


def check_name_free(recipe: Recipe, workspace: Workspace, report: Report) -> None:
    """A name that a run or a finished LoRA has already."""
    run = RunFolder(workspace.run(recipe.name))
    if run.path.exists():
        state = run.status().state
        report.block(
            "name", f"run {recipe.name!r} exists already ({state})", "resume or clone it, or choose another name"
        )
    elif workspace.lora(recipe.name).exists():
        report.block("name", f"a LoRA {recipe.name!r} exists already", "choose another name")


def check_dataset(name: str, workspace: Workspace, report: Report) -> list[Picture]:
    """A dataset that is not chosen, absent or empty; returns its pictures."""
    if not name:
        report.block("dataset.name", "no dataset is chosen", "import pictures, then set dataset.name")
        return []
    try:
        pictures = Dataset.open(workspace.dataset(name)).pictures()
    except LoraLightningError as error:
        report.block("dataset.name", error.message, error.hint)
        return []
    if not pictures:
        report.block("dataset.name", f"dataset {name!r} holds no pictures", "import some")
    return pictures


def check_captions(recipe: Recipe, pictures: list[Picture], report: Report) -> None:
    """Pictures without a caption, captions without the trigger, pictures below the smallest resolution."""
    bare = [picture for picture in pictures if not picture.caption]
    if bare:
        used = f"the trigger {recipe.trigger!r}" if recipe.trigger else "an empty caption"
        hint = f"training uses {used} for them; or caption first"
        report.warn("dataset.name", f"{_count(bare)} without a caption", hint)
    trigger = recipe.trigger.lower()
    without = [picture for picture in pictures if picture.caption and trigger not in picture.caption.lower()]
    if not trigger:
        report.warn("trigger", "there is no trigger word", "the LoRA will always be on, whatever the prompt")
    elif without:
        report.warn("trigger", f"{len(without)} captions lack {recipe.trigger!r}", "training puts it before them")
    side = min(recipe.dataset.resolutions)
    small = [picture for picture in pictures if picture.width * picture.height < side * side]
    if small:
        example = f"{small[0].name} ({small[0].width} x {small[0].height})"
        hint = "these train at their own size; add larger ones or a lower resolution"
        report.warn("dataset.resolutions", f"{_count(small)} below {side} x {side}, such as {example}", hint)


def check_generate(recipe: Recipe, workspace: Workspace, report: Report) -> None:
    """No prompt, or a LoRA that is not there."""
    if not recipe.generate.prompts:
        report.block("generate.prompts", "there is no prompt", "set generate.prompts=[a fox in a forest]")
    finished = {name: workspace.lora(name) for name in workspace.lora_names()}
    asked = [("generate.loras", choice.name) for choice in recipe.generate.loras]
    for text in recipe.generate.prompts:
        try:
            asked += [("generate.prompts", lora.name) for lora in prompt.parse(text).loras]
        except LoraLightningError as error:
            report.block("generate.prompts", error.message, error.hint)
    for where, name in dict.fromkeys(asked):
        try:
            library.find(name, finished)
        except LoraLightningError as error:
            report.block(where, error.message, error.hint)


def check_lora(name: str, workspace: Workspace, report: Report) -> None:
    """No finished LoRA of that name."""
    if not workspace.lora(name).is_file():
        known = ", ".join(workspace.lora_names())
        hint = f"choose one of: {known}" if known else "train it first"
        report.block("name", f"there is no finished LoRA {name!r}", hint)


def check_publish(recipe: Recipe, workspace: Workspace, report: Report) -> None:
    """No repository, or no finished LoRA."""
    if not recipe.publish.repo:
        report.block("publish.repo", "no repository is chosen", "set publish.repo=user/name")
    check_lora(recipe.name, workspace, report)


def check_base(base: str, report: Report) -> None:
    """A base model that is absent, incomplete, or behind a licence nobody here has accepted."""
    source = models.resolve_base(base)
    folder = Path(source)
    if folder.is_dir():
        missing = missing_files(folder)
        if missing:
            what = f"folder {base} is no whole FLUX pipeline: {', '.join(missing[:3])} missing"
            report.block("model.base", what, "download it again")
    elif looks_like_path(base):
        report.block("model.base", f"there is no model folder {base!r}", BASE_HINT)
    else:
        _check_hub(source, "model_index.json", "model.base", report)


def check_captioner(captioner: str, report: Report) -> None:
    """A captioner that is absent."""
    try:
        source = resolve(captioner)
    except LoraLightningError as error:
        report.block("caption.captioner", error.message, error.hint)
        return
    if not source.folder:
        _check_hub(source.location, "config.json", "caption.captioner", report)


def looks_like_path(name: str) -> bool:
    """Whether a name can only mean a folder."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


def _check_hub(repo: str, marker: str, where: str, report: Report) -> None:
    if isinstance(try_to_load_from_cache(repo, marker), str):
        return
    if repo.count("/") != 1:
        report.block(where, f"{repo!r} is no model", BASE_HINT)
    elif constants.HF_HUB_OFFLINE:
        report.block(where, f"{repo} is not on this machine and HF_HUB_OFFLINE is set", "unset it or give a folder")
    elif repo.startswith("black-forest-labs/") and not get_token():
        link = f"https://huggingface.co/{repo}"
        report.block(
            where, f"{repo} is gated and nobody is logged in", f"accept its licence at {link}, then `hf auth login`"
        )
    else:
        report.warn(where, f"{repo} is not on this machine yet", "it is downloaded first; FLUX.1 is about 34 GB")


def check_disk(workspace: Workspace, report: Report) -> None:
    """A workspace that cannot be written, or too little room."""
    home = next(folder for folder in (workspace.home, *workspace.home.parents) if folder.exists())
    if not os.access(home, os.W_OK):
        report.block("--home", f"{workspace.home} cannot be written", "choose another folder with --home")
    free = shutil.disk_usage(home).free
    if free < GIB:
        report.block("disk", f"{free / GIB:.1f} GiB are free at {home}", "free at least 1 GiB")


def check_gpu(base: str, report: Report) -> None:
    """No GPU, or one too small, for a full-size model."""
    if base not in models.PUBLISHED:
        return
    cards = gpus()
    if not cards:
        report.warn("model.base", "no NVIDIA GPU is visible: FLUX on a CPU takes days", "use a GPU of 12 GB or more")
    elif max(card.memory_mib for card in cards) < 11_000:
        size = f"{cards[0].name} has {cards[0].memory_mib / 1024:.0f} GB"
        report.warn("model.base", size, "FLUX needs 12 GB or more")


def _count(pictures: list[Picture]) -> str:
    return "1 picture is" if len(pictures) == 1 else f"{len(pictures)} pictures are"
