"""The model card of a finished LoRA: output/NAME/README.md, made from the recipe and from what the run measured.

Prompts and trigger words are anybody's text: none of it can break the YAML, the Markdown or the page around it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from PIL import Image

from lora_lightning import __version__
from lora_lightning.models.config import PUBLISHED
from lora_lightning.runs.files import write_text
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.reporter import Outcome
from lora_lightning.workspace import Workspace

if TYPE_CHECKING:
    from lora_lightning.recipe import Recipe

NO_REPO = "YOUR-NAME/"
"""Stands before the LoRA's name until it is published."""

TAGS = ("text-to-image", "diffusers", "lora", "flux", "template:sd-lora", "lora-lightning")
MOST_SAMPLES = 12


@dataclass(frozen=True)
class Licence:
    """A licence as the Hub's front matter has it; what is learned from a base inherits its licence."""

    key: str
    name: str
    link: str


LICENCES = {
    PUBLISHED["dev"]: Licence(
        "other",
        "flux-1-dev-non-commercial-license",
        f"https://huggingface.co/{PUBLISHED['dev']}/blob/main/LICENSE.md",
    ),
    PUBLISHED["schnell"]: Licence("apache-2.0", "Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
}


@dataclass(frozen=True)
class Sample:
    """A picture of the card: its name in samples/, and what was asked for."""

    file: str
    prompt: str


@dataclass(frozen=True)
class Card:
    """Everything that a card says.

    Attributes:
        base: Hub id, or the name of a folder.
        facts: rows of the training table, in order.
    """

    name: str
    trigger: str
    base: str
    steps: int
    guidance: float
    samples: Sequence[Sample]
    facts: Mapping[str, str]

    @property
    def on_hub(self) -> bool:
        """Whether the base can be linked."""
        return self.base.count("/") == 1


def write_card(recipe: "Recipe", workspace: Workspace, run: RunFolder, outcome: Outcome) -> Path:
    """Write the card of the LoRA that a training run has made.

    Args:
        recipe: it was trained by.
        workspace: that holds it.
        run: its training, for the number of pictures.
        outcome: of the training, for what was measured.
    """
    folder = workspace.lora(recipe.name).parent
    base = PUBLISHED.get(recipe.model.base, recipe.model.base)
    card = Card(
        name=recipe.name,
        trigger=recipe.trigger,
        base=base if _is_hub_id(base) else Path(base).name,
        steps=recipe.sample.steps,
        guidance=recipe.sample.guidance,
        samples=find_samples(folder / "samples"),
        facts=_facts(recipe, run, outcome),
    )
    return write_text(folder / "README.md", render(card))


def render(card: Card) -> str:
    """The card as Markdown with YAML front matter."""
    front = yaml.safe_dump(_front_matter(card), sort_keys=False, allow_unicode=True, width=1000)
    sections = [_head(card), _trigger(card), _use(card), _training(card), _licence(card)]
    return f"---\n{front}---\n\n" + "\n\n".join(section for section in sections if section) + "\n"


def find_samples(folder: Path) -> list[Sample]:
    """The pictures of a LoRA that carry their prompt, in the order of their names; the contact sheet has none."""
    samples = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path, formats=["PNG"]) as picture:
            picture.load()  # text chunks may stand behind the pixels
            prompt = picture.info.get("prompt")
        if prompt:
            samples.append(Sample(path.name, str(prompt)))
    return samples[:MOST_SAMPLES]


def markdown(text: str) -> str:
    """Foreign text on one line, with everything that Markdown, HTML or an autolinker would act on made literal."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$:&@]|(?<=www)\.)", r"\\\1", _line(text), flags=re.IGNORECASE)


def _line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _is_hub_id(base: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", base)) and not Path(base).exists()


def _front_matter(card: Card) -> dict[str, object]:
    front: dict[str, object] = {"tags": list(TAGS), "library_name": "diffusers", "pipeline_tag": "text-to-image"}
    if card.on_hub:
        front |= {"base_model": card.base, "base_model_relation": "adapter"}
    if card.trigger:
        front["instance_prompt"] = _line(card.trigger)
    licence = LICENCES.get(card.base)
    if licence:
        front["license"] = licence.key
        if licence.key == "other":
            front |= {"license_name": licence.name, "license_link": licence.link}
    if card.samples:
        front["widget"] = [
            {"text": _line(sample.prompt), "output": {"url": f"samples/{sample.file}"}} for sample in card.samples
        ]
    return front


def _head(card: Card) -> str:
    base = (
        f"[{card.base}](https://huggingface.co/{card.base})"
        if card.on_hub
        else f"{markdown(card.base)} (a local FLUX model)"
    )
    text = f"# {markdown(card.name)}\n\nA LoRA for {base}, trained with LoRA Lightning {__version__}."
    return text + ("\n\n<Gallery />" if card.samples else "")


def _trigger(card: Card) -> str:
    return f"## Trigger word\n\nWrite **{markdown(card.trigger)}** in the prompt." if card.trigger else ""


def _use(card: Card) -> str:
    prompt = _line(card.samples[-1].prompt) if card.samples else (card.trigger or "a photograph")
    base = card.base if card.on_hub else f"path/to/{card.base}"
    return f"""## Use

diffusers (0.42 or newer):

```python
import torch
from diffusers import FluxPipeline

pipeline = FluxPipeline.from_pretrained({json.dumps(base)}, dtype=torch.bfloat16).to("cuda")
pipeline.load_lora_weights("{NO_REPO}{card.name}", weight_name="{card.name}.safetensors")
prompt = {json.dumps(prompt, ensure_ascii=False)}
picture = pipeline(prompt, num_inference_steps={card.steps}, guidance_scale={card.guidance:g}).images[0]
```

ComfyUI: put `{card.name}.safetensors` into `models/loras` and add the node LoraLoaderModelOnly at strength 1.

Forge: put it into `models/Lora` and write `<lora:{card.name}:1>` in the prompt. With a base in low bits, set
"Diffusion in Low Bits" to one with "fp16 LoRA"."""


def _training(card: Card) -> str:
    rows = "\n".join(f"| {name} | {markdown(value)} |" for name, value in card.facts.items())
    return f"## Training\n\n| | |\n|---|---|\n{rows}\n\nThe whole recipe is in [recipe.yaml](recipe.yaml)."


def _licence(card: Card) -> str:
    licence = LICENCES.get(card.base)
    if licence:
        return f"## Licence\n\n[{licence.name}]({licence.link}), as the base model."
    return "## Licence\n\nThat of the base model."


def _facts(recipe: "Recipe", run: RunFolder, outcome: Outcome) -> dict[str, str]:
    train, report = recipe.train, outcome.report
    stored = report.get("plan", {}).get("quantize", train.quantize)  # type: ignore[attr-defined]
    loss, speed = report.get("final_loss"), report.get("steps_per_second")
    frozen = [path for name in ("dataset", "dataset-*") for path in run.path.glob(f"{name}.jsonl")]
    pictures = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in frozen)
    facts = {
        "Pictures": str(pictures or ""),
        "Steps": str(train.plan.steps),
        "Rank, alpha": f"{recipe.lora.rank}, {recipe.lora.options['alpha']:g}",
        "Adapted layers": recipe.lora.modules or recipe.lora.targets,
        "Learning rate": f"{train.learning_rate:g}",
        "Batch size": f"{train.batch_size} x {train.accumulate}" if train.accumulate > 1 else str(train.batch_size),
        "Optimizer": train.optimizer,
        "Precision": train.precision + (f", base in {stored}" if stored not in ("none", "auto") else ""),
        "Resolutions": ", ".join(map(str, recipe.dataset.resolutions)),
        "Timesteps, shift": f"{train.timesteps}, {train.shift}",
        "Seed": str(recipe.seed),
        "Final loss": f"{loss:.4g}" if isinstance(loss, float) else "",
        "Speed": f"{speed:.3g} steps/s" if isinstance(speed, float) else "",
    }
    return {name: value for name, value in facts.items() if value}
