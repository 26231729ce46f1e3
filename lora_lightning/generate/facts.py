"""What a drawn picture says about itself, in the text chunks of its PNG."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from lora_lightning import __version__
from lora_lightning.generate.library import LoraSource
from lora_lightning.generate.prompt import Lora, Prompt, format
from lora_lightning.models.sampling import Shot

SOFTWARE = f"LoRA Lightning {__version__}"


@dataclass(frozen=True)
class Used:
    """A LoRA that helped to draw a picture."""

    lora: Lora
    source: LoraSource


def facts(shot: Shot, model: str, used: Sequence[Used]) -> dict[str, str]:
    """Everything it takes to draw the picture again, by name; `parameters` is what other tools read."""
    loras = [{"name": each.source.name, "weight": each.lora.weight, "sha256": each.source.sha256} for each in used]
    return shot.facts() | {
        "model": model,
        "loras": json.dumps(loras, ensure_ascii=False),
        "software": SOFTWARE,
        "parameters": parameters(shot, model, used),
    }


def parameters(shot: Shot, model: str, used: Sequence[Used]) -> str:
    """The same in the form of AUTOMATIC1111's WebUI: the prompt, then `Name: value` pairs.

    Source: `create_infotext` in modules/processing.py of stable-diffusion-webui; Forge adds `Distilled CFG Scale`.
    """
    prompt = Prompt(shot.prompt, tuple(Lora(each.source.name, each.lora.weight) for each in used))
    values = {
        "Steps": str(shot.steps),
        "Sampler": "Euler",
        "CFG scale": "1",
        "Distilled CFG Scale": f"{shot.guidance:g}",
        "Seed": str(shot.seed),
        "Denoising strength": f"{shot.strength:g}" if shot.strength else "",
        "Size": f"{shot.width}x{shot.height}",
        "Model": model,
        "Lora hashes": ", ".join(f"{each.source.name}: {each.source.short_hash}" for each in used),
        "Version": SOFTWARE,
    }
    return f"{format(prompt)}\n" + ", ".join(f"{name}: {_quoted(value)}" for name, value in values.items() if value)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ",:\n") else value
