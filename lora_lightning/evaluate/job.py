"""`evaluate`: the base and the LoRA from the same seeds, side by side and in numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from lora_lightning.datasets.images import open_rgb
from lora_lightning.datasets.store import Dataset
from lora_lightning.evaluate import measures
from lora_lightning.evaluate.encoders import Encoder, resolve
from lora_lightning.evaluate.grid import BASE, SUBJECTS, Cell, grid
from lora_lightning.evaluate.measures import Measure, Style
from lora_lightning.models.base import TextEmbedding, open_family
from lora_lightning.models.device import choose_device, wants_low_vram
from lora_lightning.models.lora_files import diffusers as lora_file
from lora_lightning.models.reading import read
from lora_lightning.models.sampling import Shot, draw, save_png
from lora_lightning.models.sheet import Row, contact_sheet
from lora_lightning.runs.files import write_atomic, write_json
from lora_lightning.runs.reporter import Outcome, Reporter
from lora_lightning.workspace import Workspace

if TYPE_CHECKING:
    from lora_lightning.recipe import Recipe

ADAPTER = "evaluated"
TRAINING = -1
"""The place of prompts that are captions of training pictures."""

MOST_KNOWN = 12
"""Training captions that the base draws, to learn the style's direction."""


@dataclass(frozen=True)
class Drawn:
    """A cell and its picture."""

    cell: Cell
    picture: Image.Image
    path: Path


def run(recipe: "Recipe", workspace: Workspace, reporter: Reporter) -> Outcome:
    """Draw the grid, measure it, and write the sheet and the report.

    Raises:
        LoraFileError: there is no such LoRA.
        ModelError: the base or the encoder cannot be opened.
    """
    settings = recipe.evaluate
    prompts = settings.prompts or SUBJECTS
    cells = grid(prompts, recipe.trigger, settings.weights, settings.seeds, settings.seed)
    datasets = [Dataset.open(workspace.dataset(chosen.name)) for chosen in recipe.dataset.chosen]
    known = _known(datasets, recipe.trigger)
    cells += [Cell(TRAINING, caption, False, BASE, settings.seed + i) for i, caption in enumerate(known)]
    shots = [
        Shot(cell.text, cell.seed, settings.width, settings.height, settings.steps, settings.guidance) for cell in cells
    ]
    device = choose_device()
    dtype = torch.float32 if recipe.train.precision == "32-true" else torch.bfloat16
    opened = partial(open_family, recipe.model.base, dtype=dtype, files=recipe.model.files.model_dump())
    family = opened(device=device)
    texts = read(family, partial(opened, device=torch.device("cpu")), (shot.prompt for shot in shots), reporter)
    reporter.phase("loading the model")
    transformer = family.load_transformer("nf4" if wants_low_vram(recipe.model.low_vram, device) else "none")
    pipeline = family.pipeline(transformer)
    lora_file.load(pipeline, workspace.lora(recipe.name), ADAPTER)
    drawn = _draw(pipeline, recipe.name, cells, shots, texts, reporter)
    family.release()
    reporter.phase("measuring")
    encoder = Encoder(resolve(settings.encoder, recipe.model.base), device)
    found = measure(encoder, prompts, drawn, list(known.values()))
    drawn = [item for item in drawn if item.cell.prompt != TRAINING]
    sheet = _sheet(recipe.name, settings.weights, [Path(path) for path in settings.references], drawn, found)
    run_folder = reporter.run.path
    sheet_path = write_atomic(run_folder / "samples" / "sheet.png", lambda file: sheet.save(file, format="PNG"))
    rows = [asdict(measure_) for measure_ in found]
    report = write_json(run_folder / "report.json", {"lora": recipe.name, "measures": rows, "pictures": len(drawn)})
    return Outcome(
        {"images": [str(item.path) for item in drawn], "sheet": str(sheet_path), "report": str(report)},
        {item.name: item.value for item in found} | {"measures": rows},
    )


def _draw(
    pipeline: DiffusionPipeline,
    lora: str,
    cells: Sequence[Cell],
    shots: Sequence[Shot],
    texts: Mapping[str, TextEmbedding],
    reporter: Reporter,
) -> list[Drawn]:
    reporter.phase("drawing", total=len(cells))
    drawn = []
    for number, (cell, shot) in enumerate(zip(cells, shots, strict=True), start=1):
        reporter.check_stop()
        pipeline.set_adapters([ADAPTER], [cell.weight])
        picture = draw(pipeline, shot, texts[shot.prompt], between_steps=reporter.check_stop)
        facts = shot.facts() | {"lora": f"{lora}:{cell.weight:g}"}
        path = save_png(picture, reporter.run.samples / f"{number:04d}.png", facts)
        drawn.append(Drawn(cell, picture, path))
        reporter.advance(number)
    return drawn


def measure(
    encoder: Encoder, prompts: Sequence[str], drawn: Sequence[Drawn], training: Sequence[Image.Image]
) -> list[Measure]:
    """All measures of a grid; its greatest strength stands for the LoRA."""
    embedded = encoder.pictures([item.picture for item in drawn])
    texts_PD = encoder.texts(prompts)
    shown = [place for place, item in enumerate(drawn) if item.cell.prompt != TRAINING]
    top = max(drawn[place].cell.weight for place in shown)

    def of(weight: float, triggered: bool) -> list[int]:
        wanted = (weight, triggered)
        return [place for place in shown if (drawn[place].cell.weight, drawn[place].cell.triggered) == wanted]

    again = [place for place, item in enumerate(drawn) if item.cell.prompt == TRAINING]
    content, look = embedded.content_ND, embedded.look_ND
    style = Style.between(look[again], encoder.pictures(training).look_ND)
    right_N = np.array([drawn[place].cell.prompt for place in of(top, True)])
    base, lora = of(BASE, True), of(top, True)
    found = [
        measures.style_transfer(look[base], look[lora], style),
        measures.prompt_adherence(content[base], content[lora], texts_PD[right_N]),
        measures.content_kept(content[base], content[lora], texts_PD, right_N),
    ]
    if bare := of(BASE, False):
        found.append(measures.trigger_response(look[base], look[lora], look[bare], look[of(top, False)], style))
    return found


def _known(datasets: Sequence[Dataset], trigger: str) -> dict[str, Image.Image]:
    """Training captions without the trigger, and their pictures: what the base is asked to draw again."""
    captioned = [(each, picture) for each in datasets for picture in each.pictures() if picture.caption]
    step = max(1, len(captioned) // MOST_KNOWN)
    known = {}
    for dataset, picture in captioned[::step][:MOST_KNOWN]:
        bare = picture.caption.replace(trigger, "").strip(" ,") if trigger else picture.caption
        known[bare] = open_rgb(dataset.path(picture))
    return known


def _sheet(
    name: str,
    weights: Sequence[float],
    references: Sequence[Path],
    drawn: Sequence[Drawn],
    found: Sequence[Measure],
) -> Image.Image:
    """Rows are prompts, with the trigger and without; columns the base, each strength, and how it should look."""
    first = {(item.cell.prompt, item.cell.triggered, item.cell.weight): item for item in reversed(drawn)}
    shown = (BASE, *sorted(set(weights) - {BASE}))
    columns = ["base", *(f"LoRA {weight:g}" for weight in shown[1:])] + (["the true style"] if references else [])
    rows = []
    for (place, triggered), item in _rows(drawn):
        pictures = [first[place, triggered, weight].picture for weight in shown]
        if triggered and place < len(references):
            pictures.append(open_rgb(references[place]))
        rows.append(Row(item.cell.text, pictures, "" if triggered else "without the trigger word"))
    shown_measures = [f"{item.name.replace('_', ' ')} {item.value:.2f}" for item in found if item.value is not None]
    return contact_sheet(f"{name}: base and LoRA from the same seeds", columns, rows, ", ".join(shown_measures))


def _rows(drawn: Sequence[Drawn]) -> list[tuple[tuple[int, bool], Drawn]]:
    """One drawn picture for each prompt with the trigger, then without, in the order of the prompts."""
    rows = {(item.cell.prompt, item.cell.triggered): item for item in drawn}
    return sorted(rows.items(), key=lambda row: (row[0][0], not row[0][1]))
