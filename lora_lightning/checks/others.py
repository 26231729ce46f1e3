"""What the steps beside training need: prompts and LoRAs, a captioner, a repository."""

from pathlib import Path

from lora_lightning.caption.config import NEEDS_GB
from lora_lightning.caption.presets import advice, filled
from lora_lightning.caption.sources import resolve
from lora_lightning.checks.model import check_hub, pipeline_of
from lora_lightning.checks.report import Report
from lora_lightning.datasets.choosing import named
from lora_lightning.datasets.snapshot import take
from lora_lightning.datasets.store import Dataset
from lora_lightning.datasets.tokens import meters
from lora_lightning.errors import LoraLightningError
from lora_lightning.generate import library, prompt
from lora_lightning.models.config import resolve_base
from lora_lightning.recipe import Recipe
from lora_lightning.runs.gpu import gpus
from lora_lightning.workspace import Workspace


def check_generate(recipe: Recipe, workspace: Workspace, report: Report) -> None:
    """No prompt, a LoRA that is not there, or no dataset to vary."""
    if recipe.generate.vary:
        _check_varied(recipe, workspace, report)
    if not recipe.generate.prompts and not recipe.generate.vary:
        report.block("generate.prompts", "there is no prompt", "set generate.prompts=[a fox in a forest]")
    reference = recipe.generate.reference
    if reference and not Path(reference).expanduser().is_file():
        report.block("generate.reference", f"there is no picture {reference}", "give the file of a picture to edit")
    elif reference and pipeline_of(recipe.model.base) == "FluxPipeline":
        told = f"{recipe.model.base} edits no picture"
        report.block("generate.reference", told, "set model.base=kontext or a FLUX.2 model, or leave it empty")
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


def _check_varied(recipe: Recipe, workspace: Workspace, report: Report) -> None:
    """No dataset to vary, or none of its pictures chosen."""
    settings = recipe.generate
    try:
        pictures = take(Dataset.open(workspace.dataset(settings.vary))).pictures
        gauge, field = meters(resolve_base(recipe.model.base)), "generate.vary_pictures"
        if not named(pictures, settings.vary_pictures, gauge, recipe.trigger, field):
            report.block(field, "no picture is chosen", "give other numbers, another filter, or leave it empty for all")
    except LoraLightningError as error:
        report.block("generate.vary", error.message, error.hint)


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


def check_captioning(recipe: Recipe, report: Report) -> None:
    """A captioner or tagger that is absent, and prompts that it cannot follow."""
    settings = recipe.caption
    models = {"caption.captioner": "" if settings.endpoint else settings.captioner, "caption.tagger": settings.tagger}
    for where, name in models.items():
        if name:
            check_captioner(name, where, report)
            check_captioner_memory(name, settings.quantize, report)
    try:
        asked = settings.asked(recipe.trigger)
        filled(settings.prefix + settings.suffix, recipe.trigger)
    except LoraLightningError as error:
        report.block("trigger", error.message, error.hint)
        return
    for text in asked:
        if warning := advice(settings.captioner, text):
            report.warn("caption.prompt", warning, "preview it, or take a prompt that it knows")


def check_captioner(captioner: str, where: str, report: Report) -> None:
    """A captioner that is absent."""
    try:
        source = resolve(captioner)
    except LoraLightningError as error:
        report.block(where, error.message, error.hint)
        return
    if not source.folder:
        check_hub(source.location, "config.json", where, report)


def check_captioner_memory(captioner: str, quantize: str, report: Report) -> None:
    """A captioner that the largest GPU has too little memory for, or that no GPU is there for."""
    needs = NEEDS_GB.get(captioner)
    if not needs:
        return
    largest = max((card.memory_mib for card in gpus()), default=0) / 1024
    if not largest:
        told = f"{captioner} on a CPU takes minutes a picture"
        report.warn("caption.captioner", told, "use a GPU, an endpoint, or a smaller captioner such as florence-2-base")
    elif largest < needs[quantize]:
        fits = [name for name in ("int8", "nf4") if needs[name] <= largest]
        hint = f"set caption.quantize={fits[0]}" if fits else "choose a smaller captioner, or an endpoint"
        told = f"{captioner} needs {needs[quantize]} GB, and the GPU has {largest:.0f}"
        report.warn("caption.captioner", told, hint)
