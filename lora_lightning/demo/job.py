"""`demo`: the whole workflow on real photographs, offline and on the CPU, with models built on the spot.

The models have the real architectures (FLUX, LLaVA) and random weights, so the pictures are noise; what the demo
proves is that every step works on this machine.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from lora_lightning import plugins, recipe, steps
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import InputError
from lora_lightning.recipe import Recipe
from lora_lightning.runs.job import reserve
from lora_lightning.runs.reporter import Outcome
from lora_lightning.workspace import Workspace

Say = Callable[[str], None]

PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
"""Real photographs that scikit-image ships."""

TRIGGER = "DEMOSTYLE"
DATASET = "demo"


def run(workspace: Workspace, say: Say) -> Outcome:
    """Import, caption, train, generate and export; says what it makes.

    Raises:
        InputError: scikit-image, whose photographs are used, is not installed.
    """
    say("This demo uses random weights: captions are gibberish and pictures are noise.")
    report = import_sources(workspace, DATASET, photographs())
    say(f"imported {len(report.accepted)} photographs into dataset {DATASET!r}")
    values = demo_recipe(workspace, _free_name(workspace))
    made: dict[str, str | list[str]] = {"dataset": str(workspace.dataset(DATASET))}
    reports: dict[str, object] = {"import": report.as_dict()}
    for verb in ("caption", "train", "generate"):
        say(f"{verb} ...")
        taken = reserve(workspace, verb, values.name, values.to_yaml())
        outcome = steps.take(verb, values, workspace, taken)
        made |= {"run": str(taken.path)} | outcome.made if verb == "train" else _under(verb, outcome)
        reports[verb] = outcome.report
    exported = plugins.load("datasets/formats", "seed").export(
        Dataset.open(workspace.dataset(DATASET)), workspace.home / "export" / values.name
    )
    made["files"] = [str(path.resolve()) for path in exported]
    _summarise(made, reports, say)
    return Outcome(made, reports)


def photographs() -> list[Path]:
    """The demo's pictures.

    Raises:
        InputError: scikit-image is not installed.
    """
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise InputError("the demo's photographs come with scikit-image", "pip install -r requirements-dev.txt")
    return [Path(found.origin).parent / "data" / name for name in PHOTOGRAPHS]


def demo_recipe(workspace: Workspace, name: str) -> Recipe:
    """The recipe of the demo on small random models, which are built when they are not there yet."""
    from lora_lightning.demo.tiny import build_captioner, build_flux

    folder = workspace.cache / "demo-models"
    for model, build in (("flux", build_flux), ("captioner", build_captioner)):
        if not (folder / model).is_dir():
            build(folder / model)
    size = {"width": 64, "height": 64, "steps": 4}
    return recipe.parse(
        {
            "name": name,
            "trigger": TRIGGER,
            "model": {"base": str(folder / "flux")},
            "dataset": {"name": DATASET, "resolutions": [64]},
            "caption": {"captioner": str(folder / "captioner"), "max_tokens": 24},
            "lora": {"rank": 8},
            "train": {"steps": 200, "learning_rate": 1e-3, "optimizer": "adamw", "gradient_checkpointing": False}
            | {"checkpoint_every": 100, "sample_every": 100},
            "sample": {"prompts": [f"a photo of a cat, {TRIGGER}"]} | size,
            "generate": {"prompts": [f"a rocket at night, {TRIGGER} <lora:{name}:1.0>", "a rocket at night"]} | size,
        }
    )


def _free_name(workspace: Workspace) -> str:
    number, name = 1, "demo"
    while workspace.run(name).exists() or (workspace.output / name).exists():
        number += 1
        name = f"demo-{number}"
    return name


def _under(verb: str, outcome: Outcome) -> dict[str, str | list[str]]:
    """The pictures of a step, which come beside those of training."""
    return {"generated": outcome.made["images"]} if verb == "generate" else {}


def _summarise(made: dict[str, str | list[str]], reports: dict[str, object], say: Say) -> None:
    lora = Path(str(made["lora"]))
    trained = reports["train"]
    assert isinstance(trained, dict)
    say(f"LoRA: {lora} ({lora.stat().st_size / 2**20:.2f} MiB), {trained['steps_per_second']:.1f} steps/s")
    for path in made["generated"]:
        say(f"picture: {path}")
    say(f"sheet: {made.get('sheet', '')}")
    say("Next: `make run` opens the dashboard on the same workspace.")
