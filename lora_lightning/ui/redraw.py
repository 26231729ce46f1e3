"""What the Generate page begins with: a picture's own recipe, or what a finished LoRA was sampled with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_lightning import recipe
from lora_lightning.errors import InputError
from lora_lightning.generate.prompt import Lora, Prompt, format
from lora_lightning.ui import form, gallery
from lora_lightning.ui.routes import SHOWN, allowed
from lora_lightning.workspace import Workspace

WHOLE = ("seed", "steps", "width", "height")


def of_picture(workspace: Workspace, relative: str) -> dict[str, Any]:
    """The sections `model` and `generate` that draw a picture of the workspace again.

    Args:
        workspace: that holds it.
        relative: its path in the workspace, as an address names it.

    Raises:
        InputError: there is no such picture, or it does not say what it was drawn from.
    """
    path = allowed(workspace.home, relative, SHOWN)
    told = gallery.facts(path) if path else {}
    if path is None or "prompt" not in told:
        raise InputError(f"{relative} does not say what it was drawn from", "Choose a picture that was drawn here.")
    made_by = _made_by(workspace, path)
    prompt = format(Prompt(told["prompt"], _loras(workspace, told, made_by)))
    drawn: dict[str, Any] = {"prompts": [prompt], "images_per_prompt": 1, "loras": []}
    drawn |= {name: int(told[name]) for name in WHOLE if told.get(name, "").isdecimal()}
    if "guidance" in told:
        drawn["guidance"] = float(told["guidance"])
    base = form.stored(made_by, "model.base")
    return {"generate": drawn} | ({"model": {"base": base}} if base else {})


def with_lora(workspace: Workspace, name: str) -> dict[str, Any]:
    """The sections that draw a first picture with a finished LoRA, as its samples were drawn."""
    made_by = dict(recipe.read(workspace.output / name / "recipe.yaml"))
    sample = form.stored(made_by, "sample") or {}
    said = next(iter(sample.get("prompts") or []), made_by.get("trigger") or "")
    drawn = {field: sample[field] for field in ("steps", "guidance", "width", "height") if field in sample}
    drawn["prompts"] = [format(Prompt(said, (Lora(name),)))]
    base = form.stored(made_by, "model.base")
    return {"generate": drawn} | ({"model": {"base": base}} if base else {})


def _made_by(workspace: Workspace, path: Path) -> Mapping[str, Any]:
    """The recipe of the run or the LoRA in whose folder a picture lies."""
    inside = path.resolve().relative_to(workspace.home.resolve()).parts
    file = workspace.home.joinpath(*inside[:2]) / "recipe.yaml"
    return recipe.read(file) if len(inside) > 2 and file.is_file() else {}


def _loras(workspace: Workspace, told: Mapping[str, str], made_by: Mapping[str, Any]) -> tuple[Lora, ...]:
    """Those that drew it; a sample of a training was drawn by what became the LoRA of its name, step 0 by the base."""
    if "loras" in told:
        return tuple(Lora(each["name"], float(each["weight"])) for each in json.loads(told["loras"]))
    name = str(made_by.get("name", ""))
    trained = told.get("step", "0") != "0" and name in workspace.lora_names()
    return (Lora(name),) if trained else ()
