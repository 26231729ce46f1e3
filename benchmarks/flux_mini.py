"""Acceptance of the shipped flux-mini and captioner-mini on this CPU, judged by the independent examiner.

PYTHONPATH=. python benchmarks/flux_mini.py --prompts 96 [--steps 16 --guidance 3] [--sheet FILE]: prints the table
and writes benchmarks/results/flux_mini_cpu.json. Prompts and seeds are fixed. About .6 s a picture on two idle cores.
(The whole table, with captioner-mini, needs the atlas: `python -m lora_lightning.demo.build --folder BUILD evaluate`.)
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from diffusers import FluxPipeline
from PIL import Image

from lora_lightning.demo import judge as examiner
from lora_lightning.demo.pretrain.common import Settings
from lora_lightning.demo.pretrain.data import picture
from lora_lightning.demo.pretrain.evaluate import draw, marks, prompt, prompt_sets

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "lora_lightning/demo/models"
JUDGE = ROOT / "tests/demo/judge"
RESULT = ROOT / "benchmarks/results/flux_mini_cpu.json"


def main() -> None:
    """Draw, judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=96, help="pictures a set")
    parser.add_argument("--steps", type=int, nargs="+", default=[16])
    parser.add_argument("--guidance", type=float, nargs="+", default=[3.0])
    parser.add_argument("--sheet", type=Path, help="write the first hundred pictures there")
    options = parser.parse_args()
    judge, names = examiner.load(JUDGE)
    pipeline = FluxPipeline.from_pretrained(MODELS / "flux-mini", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    settings, table, pictures = Settings(Path(), 0, "cpu"), {}, []
    for name, scenes in prompt_sets(len(names.concept), options.prompts).items():
        prompts = [prompt(scene, names.concept) for scene in scenes]
        for steps in options.steps:
            for guidance in options.guidance:
                started = time.monotonic()
                made = draw(pipeline, prompts, settings, steps=steps, guidance=guidance, batch=16)
                row = f"{name}, {steps} steps, guidance {guidance}"
                table[row] = marks(judge, made, scenes) | {"pictures": len(made)}
                print(row, table[row], f"{(time.monotonic() - started) / len(made):.2f} s a picture", flush=True)
        pictures += list(made[: 80 if name == "seen" else 20])
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(table, indent=1) + "\n")
    if options.sheet:
        sheet(pictures, options.sheet)


def sheet(pictures: list[torch.Tensor], path: Path) -> None:
    """Ten by ten; the last two rows are withheld pairs."""
    page = Image.new("RGB", (1280, 1280))
    for index, drawn in enumerate(pictures[:100]):
        page.paste(picture(drawn), (index % 10 * 128, index // 10 * 128))
    page.save(path, quality=80)


if __name__ == "__main__":
    main()
