"""The sample set that ships with the package: pictures in an ink style, and held-out objects with their true look."""

import json
from dataclasses import dataclass
from pathlib import Path

from lora_lightning import recipe
from lora_lightning.recipe import Recipe
from lora_lightning.workspace import Workspace

DATA = Path(__file__).parent / "data"
NAME = "inkmoji"
SHOWN = 5
"""Held-out objects on the contact sheet."""

STYLE_BLOCKS = r"single_transformer_blocks\.\d+\.(attn\.to_v|proj_mlp|proj_out)"
"""What flux-mini's style is learned with. The double blocks, and what the single ones attend to (queries and keys), are
left alone: so objects stay themselves (benchmarks/flux_mini.md)."""

GUIDANCE = 2.5
"""Of 2.5, 3.5 and 4.5 the one at which a LoRA on flux-mini has most of its style and keeps most objects."""


@dataclass(frozen=True)
class HeldOut:
    """An object that is in no training picture: how to ask for it, and how it looks in the true style."""

    concept: str
    prompt: str
    truth: Path


@dataclass(frozen=True)
class Sample:
    """A set to learn from."""

    name: str
    archive: Path
    trigger: str
    held_out: tuple[HeldOut, ...]


def sample(name: str = "ink-style") -> Sample:
    """One set."""
    entry = _manifest()[name]
    held_out = tuple(HeldOut(row["concept"], row["prompt"], DATA / row["truth"]) for row in entry["held_out"])
    return Sample(name, DATA / entry["file"], entry["trigger"], held_out)


def demo_recipe(chosen: Sample, workspace: Workspace) -> Recipe:
    """`rehearsal` on a sample set under a free name, judged by objects that the set does not hold."""
    shown = chosen.held_out[:SHOWN]
    prompts = [held_out.prompt for held_out in shown]
    name = _free_name(workspace)
    return recipe.load(
        "rehearsal",
        [
            f"name={name}",
            f"trigger={chosen.trigger}",
            f"dataset.name={chosen.name}",
            f"lora.modules={STYLE_BLOCKS}",
            "train.ema_decay=0.97",
            *(f"{section}.guidance={GUIDANCE}" for section in ("sample", "evaluate", "generate")),
            f"sample.prompts={[f'{chosen.trigger}, {prompts[0]}']}",
            f"evaluate.prompts={prompts}",
            f"evaluate.references={[str(held_out.truth) for held_out in shown]}",
            f"generate.prompts={[f'{chosen.trigger}, {prompt} <lora:{name}:1>' for prompt in prompts[:2]]}",
        ],
    )


def _free_name(workspace: Workspace) -> str:
    """`inkmoji`, or `inkmoji-2`, `inkmoji-3`, ...: the demo numbers itself."""
    number, name = 1, NAME
    while workspace.run(name).exists() or workspace.run(f"{name}.demo").exists() or (workspace.output / name).exists():
        number += 1
        name = f"{NAME}-{number}"
    return name


def _manifest() -> dict[str, dict]:  # type: ignore[type-arg]  # rows of several kinds
    manifest: dict[str, dict] = json.loads((DATA / "manifest.json").read_text(encoding="utf-8"))  # type: ignore[type-arg]
    return manifest
