"""The base model and the adapter on it: absent, gated, or not made for each other; looked at without a weight."""

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import constants, get_token

from lora_lightning.checks.report import Report
from lora_lightning.models.config import (
    PUBLISHED,
    SCHNELL_ADAPTER,
    resolve_base,
    resolve_training_adapter,
)
from lora_lightning.models.source import HUB_ID, PART_OF, missing_files, unusable
from lora_lightning.recipe import Recipe
from lora_lightning.runs.files import read_json
from lora_lightning.workspace import Workspace

BASE_HINT = "give dev, schnell, a diffusers folder, or a Hub id such as owner/name"
GIGABYTES = {"klein-4b": 16, "klein-9b": 35, "flux2-dev": 113}
"""Of a download; FLUX.1 models are 34."""
FLUX2 = ("Flux2Pipeline", "Flux2KleinPipeline")
FLUX2_KINDS, FLUX2_TARGETS = ("lora",), ("attention", "all", "modulation")
SCHNELL_STEPS = 8
READERS = {"dora": "diffusers and new ComfyUI", "lokr": "ComfyUI and this program", "loha": "ComfyUI and this program"}


def check_start(recipe: Recipe, workspace: Workspace, report: Report) -> None:
    """A LoRA to continue from that is not there."""
    name = recipe.lora.init_from
    if name and name not in workspace.lora_names() and not Path(name).is_file():
        saved = [] if "/" in name else [*(workspace.runs / name / "checkpoints").glob("*.ckpt")]
        if not saved:
            hint = "name a finished LoRA or a run with a checkpoint, or give a file"
            report.block("lora.init_from", f"there is no LoRA and no run {name!r}", hint)


def check_adapter(recipe: Recipe, report: Report) -> None:
    """A kind of adapter that few tools read, or that this base cannot have."""
    lora, flux2 = recipe.lora, pipeline_of(recipe.model.base) in FLUX2
    if flux2 and lora.kind not in FLUX2_KINDS:
        report.block("lora.kind", f"{lora.kind} has no file for FLUX.2 that other tools read", "set lora.kind=lora")
    elif lora.kind in READERS:
        told = f"only {READERS[lora.kind]} read a {lora.kind} right"
        report.warn("lora.kind", told, "lora.kind=lora is read everywhere")
    if flux2 and not lora.modules and lora.targets not in FLUX2_TARGETS:
        told = f"which blocks of FLUX.2 draw {lora.targets} has not been measured"
        report.block("lora.targets", told, f"use one of {', '.join(FLUX2_TARGETS)}; or name modules with lora.modules")
    stored = stored_as(recipe)
    if stored == "nf4" and lora.kind in ("lokr", "loha"):
        hint = "set model.low_vram=false and train.quantize=none or int8; or lora.kind=lora"
        report.block("lora.kind", f"{lora.kind} cannot be trained on a base in 4 bit", hint)
    if stored in ("int8", "fp8") and lora.kind == "dora":
        hint = "set train.quantize=none or nf4; or lora.kind=lora"
        report.block("lora.kind", "dora cannot be trained on a base in 8 bit", hint)


def stored_as(recipe: Recipe) -> str:
    """How the base's linears are to be stored, as far as the recipe says: none, nf4, int8, fp8, or auto."""
    low_vram, quantize = recipe.model.low_vram, recipe.train.quantize
    if low_vram is True:
        return "nf4"
    return "none" if quantize == "auto" and low_vram is False else quantize


def check_purpose(recipe: Recipe, report: Report) -> None:
    """A base that is used against what it was made for."""
    base, adapter = resolve_base(recipe.model.base), recipe.model.training_adapter
    resolved = resolve_training_adapter(adapter, recipe.model.base)
    if "schnell" in base.lower():
        if not resolved:
            told = "schnell is distilled for four steps, and training without an adapter undoes that"
            report.warn("model.training_adapter", told, f"set model.training_adapter={SCHNELL_ADAPTER}")
        if recipe.sample.steps > SCHNELL_STEPS:
            told = f"schnell draws in 4 steps; samples would take {recipe.sample.steps}"
            report.warn("sample.steps", told, "set sample.steps=4")
    elif resolved == SCHNELL_ADAPTER:
        told = f"{SCHNELL_ADAPTER} was made for schnell, not for {recipe.model.base}"
        report.warn("model.training_adapter", told, "set model.training_adapter=auto")
    if resolved and HUB_ID.fullmatch(resolved) and not Path(resolved).is_file():
        check_hub(resolved, "*.safetensors", "model.training_adapter", report)
    pipeline = pipeline_of(recipe.model.base)
    if pipeline == "FluxKontextPipeline" and not recipe.dataset.references:
        told = "Kontext edits a picture, and there are no references to learn an edit from"
        report.warn("model.base", told, "set dataset.references=true, or model.base=dev")
    if pipeline == "FluxPipeline" and recipe.dataset.references:
        told = f"{recipe.model.base} was never shown a reference picture"
        report.warn("dataset.references", told, "set model.base=kontext or a FLUX.2 model")


def pipeline_of(base: str) -> str:
    """The class of the pipeline behind a base model's name; empty where nothing tells."""
    place = resolve_base(base)
    if Path(place).is_dir():
        return str(read_json(Path(place) / "model_index.json").get("_class_name", ""))
    short = next((name for name, repo in PUBLISHED.items() if repo == place), "")
    if short == "kontext":
        return "FluxKontextPipeline"
    if short.startswith("klein"):
        return "Flux2KleinPipeline"
    return "Flux2Pipeline" if short.startswith("flux2") else "FluxPipeline" if short else ""


def check_base(base: str, report: Report, files: Mapping[str, str]) -> None:
    """A base model that is absent, incomplete, or behind a licence nobody here has accepted."""
    given = {PART_OF[name]: Path(path) for name, path in files.items() if path}
    for name, error in unusable(files).items():
        report.block(f"model.files.{name}", error.message, error.hint)
    source = resolve_base(base)
    folder = Path(source)
    if folder.is_dir():
        missing = missing_files(folder, given)
        if missing:
            what = f"folder {base} is no whole FLUX pipeline: {', '.join(missing[:3])} missing"
            report.block("model.base", what, "download it again")
    elif looks_like_path(base):
        report.block("model.base", f"there is no model folder {base!r}", BASE_HINT)
    elif given.keys() != set(PART_OF.values()):
        short = next((name for name, repo in PUBLISHED.items() if repo == source), "")
        size = f"about {GIGABYTES.get(short, 34)} GB" if short else ""
        check_hub(source, "model_index.json", "model.base", report, size)


def looks_like_path(name: str) -> bool:
    """Whether a name can only mean a folder."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


def check_hub(repo: str, marker: str, where: str, report: Report, size: str = "") -> None:
    """A model that is not on this machine, and whether it can be had.

    Args:
        repo: its id.
        marker: a file that tells whether it is here; `*` stands for any characters.
        where: the field that names it.
        report: is added to.
        size: of the download, in words.
    """
    cached = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "snapshots"
    if any(cached.glob(f"*/{marker}")):
        return
    gated = repo.startswith("black-forest-labs/")
    link = f"https://huggingface.co/{repo}"
    if repo.count("/") != 1:
        report.block(where, f"{repo!r} is no model", BASE_HINT)
    elif constants.HF_HUB_OFFLINE:
        report.block(where, f"{repo} is not on this machine and HF_HUB_OFFLINE is set", "unset it or give a folder")
    elif gated and not get_token():
        told = f"{repo} is gated and nobody is logged in"
        report.block(where, told, f"accept its licence at {link}, then `hf auth login`")
    else:
        accept = f", if its licence was accepted at {link}" if gated else ""
        hint = f"it is downloaded first{f' ({size})' if size else ''}{accept}"
        report.warn(where, f"{repo} is not on this machine yet", hint)
