"""`generate`: draws prompts with a base model and any mix of LoRAs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from lora_lightning.datasets.images import open_rgb
from lora_lightning.errors import InputError, LoraLightningError, Problem, RecipeError
from lora_lightning.generate import vary
from lora_lightning.generate.facts import Used, facts
from lora_lightning.generate.library import LoraSource, find
from lora_lightning.generate.mix import Mix
from lora_lightning.generate.prompt import Lora, Prompt, add, parse
from lora_lightning.models.base import open_family
from lora_lightning.models.config import PUBLISHED
from lora_lightning.models.device import choose_device, peak_memory_mib, reset_peak_memory, wants_low_vram
from lora_lightning.models.reading import read
from lora_lightning.models.sampling import Shot, draw, save_png
from lora_lightning.models.sheet import Row, contact_sheet
from lora_lightning.runs.reporter import Outcome, Reporter, absolute
from lora_lightning.workspace import Workspace

if TYPE_CHECKING:
    from lora_lightning.recipe import Recipe

MOST_SHEET_COLUMNS, MOST_SHEET_ROWS = 8, 32


@dataclass(frozen=True)
class Picture:
    """One picture to draw, the LoRAs that draw it, and where it goes."""

    shot: Shot
    loras: tuple[Lora, ...]
    path: Path


@dataclass(frozen=True)
class Plan:
    """The pictures of a run, and the LoRA files that they need, by the names that prompts call them."""

    pictures: list[Picture]
    sources: dict[str, LoraSource]


def run(recipe: "Recipe", workspace: Workspace, reporter: Reporter) -> Outcome:
    """Draw every prompt, `images_per_prompt` times; a run that was stopped goes on with the pictures that are missing.

    A plain loop instead of a Lightning predict loop: a single picture can take minutes, so progress and stop are
    looked at between its denoising steps, which such a loop cannot do; and nothing is batched.

    Raises:
        RecipeError: there is no prompt, or prompts hold mistakes; all are listed.
        LoraFileError: a LoRA file is damaged or does not fit the base model.
        InputError: there is a reference or a dataset to vary, and the base model cannot do that.
        Stopped: a stop was requested; whole pictures are kept.
    """
    planned = plan(recipe, workspace, reporter.run.samples)
    keep = vary.keeper(workspace, recipe.generate.vary)
    missing = [picture for picture in planned.pictures if not picture.path.is_file()]
    for picture in (picture for picture in planned.pictures if picture.path.is_file()):
        keep(picture.path)  # a kill between drawing and keeping one would lose it otherwise
    device = choose_device()
    reset_peak_memory(device)
    seconds = _draw(recipe, planned, missing, keep, device, reporter) if missing else 0.0
    reporter.phase("drawing the contact sheet")
    sheet = _sheet(recipe, planned.pictures)
    sheet_path = save_png(sheet, reporter.run.samples / "sheet.png", {"title": recipe.name})
    paths = [picture.path for picture in planned.pictures]
    return Outcome(
        {"images": absolute(*paths), "sheet": str(sheet_path)},
        {
            "pictures": len(paths),
            "seconds_per_picture": round(seconds / len(missing), 3) if missing else 0.0,
            "loras": {source.name: source.sha256 for source in planned.sources.values()},
            "peak_memory_mib": peak_memory_mib(device),
        },
    )


def plan(recipe: "Recipe", workspace: Workspace, folder: Path) -> Plan:
    """What to draw, from the recipe's prompts and LoRAs.

    Raises:
        RecipeError: there is no prompt, or prompts hold mistakes; all are listed.
    """
    settings = recipe.generate
    finished = {name: workspace.lora(name) for name in workspace.lora_names()}
    asked = settings.prompts or ((vary.CAPTION,) if settings.vary else ())
    problems = [] if asked else [Problem("generate.prompts", "there is no prompt", "write at least one")]
    begins = _begins(recipe, workspace, problems)
    prompts: list[Prompt] = []
    sources: dict[str, LoraSource] = {}
    always = [Lora(choice.name, choice.weight) for choice in settings.loras]
    for number, written in enumerate(asked, start=1):
        try:
            prompt = parse(written)
            loras = add([*always, *prompt.loras])
            sources |= {lora.name: find(lora.name, finished) for lora in loras}
        except InputError as error:
            problems.append(Problem(f"generate.prompts.{number}", error.message, error.hint))
            continue
        prompts.append(Prompt(prompt.text, loras))
    if problems:
        raise RecipeError(problems)
    every = list(product(prompts, range(settings.images_per_prompt)))
    digits = max(4, len(str(len(every))))
    pictures = [
        Picture(begin.with_prompt(prompt.text, place), prompt.loras, folder / f"{begin.mark}{number:0{digits}d}.png")
        for begin in begins
        for number, (prompt, place) in enumerate(every, start=1)
    ]
    return Plan(pictures, sources)


def _begins(recipe: "Recipe", workspace: Workspace, problems: list[Problem]) -> list[vary.Begin]:
    """What every prompt is drawn from: noise, a reference, or each picture of a dataset."""
    settings = recipe.generate
    usual = Shot("", settings.seed, settings.width, settings.height, settings.steps, settings.guidance)
    try:
        if settings.vary:
            usual = replace(usual, strength=settings.strength)
            chosen, base = settings.vary_pictures, recipe.model.base
            return vary.begins(workspace, settings.vary, chosen, base, recipe.trigger, usual)
        if settings.reference:
            usual = replace(usual, reference=str(Path(settings.reference).expanduser())).in_its_shape()
    except LoraLightningError as error:
        where = "generate.vary" if settings.vary else "generate.reference"
        problems.append(Problem(where, error.message, error.hint))
    return [vary.Begin(usual)]


def _draw(
    recipe: "Recipe",
    planned: Plan,
    missing: Sequence[Picture],
    keep: vary.Keep,
    device: torch.device,
    reporter: Reporter,
) -> float:
    """Draw what is missing; returns the seconds that it took, without loading."""
    dtype = torch.float32 if recipe.train.precision == "32-true" else torch.bfloat16
    opened = partial(open_family, recipe.model.base, dtype=dtype, files=recipe.model.files.model_dump())
    family = opened(device=device)
    if recipe.generate.reference and not family.edits:
        hint = "Set model.base=kontext or a FLUX.2 model, or leave out generate.reference."
        raise InputError(f"{recipe.model.base} edits no picture", hint)
    if recipe.generate.vary and family.edits:
        hint = "Set model.base=dev, krea or schnell; with this one, generate.reference edits a picture."
        raise InputError(f"{recipe.model.base} varies no picture", hint)
    on_cpu = partial(opened, device=torch.device("cpu"))
    texts = read(family, on_cpu, (picture.shot.prompt for picture in missing), reporter)
    reporter.phase("loading the model")
    transformer = family.load_transformer("nf4" if wants_low_vram(recipe.model.low_vram, device) else "none")
    pipeline = family.pipeline(transformer)
    mix = Mix(pipeline, planned.sources)
    done = len(planned.pictures) - len(missing)
    reporter.phase("drawing", len(planned.pictures), done)
    started = time.monotonic()
    for picture in missing:
        reporter.check_stop()
        mix.use(picture.loras)
        drawn = draw(pipeline, picture.shot, texts[picture.shot.prompt], reporter.check_stop)
        used = [Used(lora, planned.sources[lora.name]) for lora in picture.loras]
        save_png(drawn, picture.path, facts(picture.shot, model_name(recipe.model.base), used))
        keep(picture.path)
        done += 1
        reporter.advance(done)
    return time.monotonic() - started


def model_name(base: str) -> str:
    """How pictures call their base model: its Hub id, or the name of its folder."""
    return PUBLISHED.get(base, Path(base).name if Path(base).expanduser().is_dir() else base)


def _sheet(recipe: "Recipe", pictures: Sequence[Picture]) -> Image.Image:
    """A row for each prompt, a column for each seed; very long lists are cut."""
    each = recipe.generate.images_per_prompt
    columns = min(each, MOST_SHEET_COLUMNS)
    rows = []
    for first in range(0, min(len(pictures), MOST_SHEET_ROWS * each), each):
        shown = pictures[first : first + columns]
        notes = ", ".join(f"{lora.name} {lora.weight:g}" for lora in shown[0].loras)
        rows.append(Row(shown[0].shot.prompt, [open_rgb(picture.path) for picture in shown], notes))
    seeds = [f"seed {picture.shot.seed}" for picture in pictures[:columns]]
    return contact_sheet(recipe.name, seeds, rows)
