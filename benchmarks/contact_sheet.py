"""The README's contact sheet, from a demo that has run.

After `make demo`: PYTHONPATH=. python benchmarks/contact_sheet.py [--home workspace --name inkmoji --output FILE].
Above, some of the drawings that the LoRA was trained on; below, objects that it was not trained on: by the base, by the
LoRA at its strengths, from the same seeds, and as the artist of the set drew them.
"""

import argparse
import io
import re
from pathlib import Path

from PIL import Image

from lora_lightning import recipe
from lora_lightning.datasets.images import open_rgb
from lora_lightning.datasets.store import Dataset
from lora_lightning.models.sheet import Row, contact_sheet
from lora_lightning.runs.folder import RunFolder
from lora_lightning.workspace import Workspace

OUTPUT = Path(__file__).parents[1] / "docs/images/contact_sheet.webp"
SIDE = 128
SHOWN = 5


def main() -> None:
    """Read the runs, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("workspace"))
    parser.add_argument("--name", default="inkmoji", help="the demo's LoRA")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    workspace = Workspace.find(options.home)
    run = RunFolder.open(workspace, f"{options.name}.evaluate")
    made = recipe.load(str(run.recipe_path))
    parts = [
        training(Dataset.open(workspace.dataset(made.dataset.name))),
        held_out(made, [Path(path) for path in run.result()["made"]["images"]]),
    ]
    page = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        page.paste(part, (0, top))
        top += part.height
    data = io.BytesIO()
    page.save(data, "PNG" if options.output.suffix == ".png" else "WEBP", quality=85, method=6)
    options.output.write_bytes(data.getvalue())
    print(f"{options.output}: {page.width} x {page.height}, {len(data.getvalue()) / 1e3:.0f} kB")


def training(dataset: Dataset) -> Image.Image:
    """A few pictures of the set, under the words that the captioner found for what they show."""
    pictures = dataset.pictures()
    shown = pictures[:: len(pictures) // SHOWN][:SHOWN]
    names = [re.split(" (?:in|on|at) ", picture.caption)[0].lower() for picture in shown]
    row = Row(f"{SHOWN} of the {len(pictures)} that it learns from", [open_rgb(dataset.path(p)) for p in shown])
    return contact_sheet("In: a few drawings, captioned by the tool", names, [row], side=SIDE)


def held_out(made: recipe.Recipe, paths: list[Path]) -> Image.Image:
    """Rows are the base, the LoRA and the truth; columns are objects."""
    drawn = {}
    for path in paths:
        facts = Image.open(path).info
        drawn[facts["prompt"], float(facts["lora"].rpartition(":")[2])] = path
    prompts = made.evaluate.prompts[:SHOWN]
    rows = []
    for weight in (0.0, *made.evaluate.weights):
        pictures = [open_rgb(drawn[f"{made.trigger}, {prompt}", weight]) for prompt in prompts]
        rows.append(Row(f"LoRA at {weight:g}" if weight else "the base model", pictures))
    rows.append(Row("how the artist draws it", [open_rgb(Path(path)) for path in made.evaluate.references[:SHOWN]]))
    names = [prompt.partition(" on ")[0] for prompt in prompts]
    return contact_sheet("Out: the same style for what was in none of them", names, rows, side=SIDE)


if __name__ == "__main__":
    main()
