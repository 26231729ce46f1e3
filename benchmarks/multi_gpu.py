"""Training on several GPUs: how much faster, how much memory, and whether the steps are those of one GPU.

    python -m benchmarks.multi_gpu [--devices 2] [--size third] [--steps 60] [--together ddp fsdp] [--output FILE]

Each row is one `python -m lora_lightning train` on a model of FLUX.1's widths with random weights (`third`: 6 + 12
blocks, 4 billion; `full`: 19 + 38; `tiny`: for a try on a CPU). First one device, then one with the samples of all,
then several, as `--together` says: a strategy, by Lightning's launcher or, as `ddp:torchrun`, by torchrun. Ratios
compare samples a second with the first row, caching and loading not counted; losses with the second row, step by step;
the peak of memory is the first device's, with the base, while training.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from PIL import Image

from lora_lightning.datasets.importing import import_sources
from lora_lightning.demo.tiny import build_flux
from lora_lightning.recipe import parse
from lora_lightning.runs.folder import RunFolder
from lora_lightning.workspace import Workspace

WIDTHS = {"attention_head_dim": 128, "num_attention_heads": 24, "axes_dims_rope": (16, 56, 56)}
BLOCKS = {"full": (19, 38), "third": (6, 12)}
PICTURES = 16
Row = dict[str, Any]


class Bench:
    """A workspace with a model and pictures, and the trainings made in it."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.options, self.workspace = options, Workspace.find(folder / "home")
        self.model = build_flux(folder / "model")
        self.side = 64 if options.size == "tiny" else options.side
        if options.size != "tiny":
            self._widen(*BLOCKS[options.size])
        pictures = [folder / f"{number:02}.png" for number in range(PICTURES)]
        for picture in pictures:
            Image.effect_noise((self.side, self.side), 80).convert("RGB").save(picture)
            picture.with_suffix(".txt").write_text(f"pattern {picture.stem}")
        import_sources(self.workspace, "patterns", [*pictures, *(path.with_suffix(".txt") for path in pictures)])

    def _widen(self, double: int, single: int) -> None:
        config = dict(FluxTransformer2DModel.load_config(self.model / "transformer"))
        config |= WIDTHS | {"num_layers": double, "num_single_layers": single}
        device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(device):
            FluxTransformer2DModel.from_config(config).save_pretrained(self.model / "transformer")
        torch.set_default_dtype(torch.float32)
        if device == "cuda":
            torch.cuda.empty_cache()

    def train(self, devices: int, batch_size: int, strategy: str = "ddp", launcher: str = "lightning") -> Row:
        """One row."""
        name = f"devices-{devices}-batch-{batch_size}-{strategy}-{launcher}"
        recipe = parse(
            {
                "name": name,
                "model": {"base": str(self.model), "low_vram": False},
                "dataset": {"name": "patterns", "resolutions": [self.side]},
                "lora": {"rank": 16},
                "train": {
                    "steps": self.options.steps,
                    "devices": devices,
                    "strategy": strategy,
                    "batch_size": batch_size,
                    "optimizer": "adamw",
                    "quantize": "none",
                    "fast": False,
                    "precision": "32-true" if self.options.size == "tiny" else "bf16-mixed",
                    "gradient_checkpointing": False,
                    "checkpoint_every": self.options.steps,
                    "sample_every": 0,
                },
                "sample": {"width": self.side, "height": self.side, "steps": 1},
            },
            [],
        )
        path = self.workspace.home / f"{name}.yaml"
        path.write_text(recipe.to_yaml())
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(devices)]
        verb = ["-m", "lora_lightning", "train", str(path), "--home", str(self.workspace.home), "--json"]
        words = [*(torchrun if launcher == "torchrun" else []), *verb]
        done = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True, check=True)
        told = next(json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"ok"'))
        report = told["report"]
        return {
            "devices": devices,
            "batch_size": batch_size,
            "strategy": strategy if devices > 1 else "none",
            "launcher": launcher,
            "samples_per_second": round(report["steps_per_second"] * devices * batch_size, 3),
            "peak_mib_of_the_first": report["peak_memory_mib"],
            "seconds": told["seconds"],
            "sheet": "sheet" in told["made"],
            "losses": [each["loss"] for each in RunFolder(self.workspace.run(name)).metrics()],
        }


def compared(row: Row, alone: Row, joint: Row) -> Row:
    """A row of several devices against one, and against one with the samples of all."""
    pairs = list(zip(row["losses"], joint["losses"], strict=True))
    return row | {
        "throughput_ratio": round(row["samples_per_second"] / alone["samples_per_second"], 3),
        "largest_relative_difference_of_the_loss": max(abs(a - b) / b for a, b in pairs),
    }


def main() -> None:
    """Every training, and what they say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--size", choices=(*BLOCKS, "tiny"), default="third")
    parser.add_argument("--side", type=int, default=512, help="of the pictures, in pixels")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--together", nargs="+", default=["ddp", "fsdp"], help="STRATEGY or STRATEGY:torchrun")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    figures: Row = {
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor(),
        "torch": torch.__version__,
        "options": {name: str(value) for name, value in vars(options).items() if name != "output"},
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options)
        ways = [tuple(way.split(":")) for way in options.together]
        for devices, batch_size, *way in [(1, 1), (1, options.devices), *((options.devices, 1, *way) for way in ways)]:
            row = bench.train(devices, batch_size, *way)
            figures["rows"].append(compared(row, *figures["rows"][:2]) if devices > 1 else row)
            print({name: value for name, value in figures["rows"][-1].items() if name != "losses"}, flush=True)
            if options.output:  # after each row: the machine may be taken away
                options.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
