"""Rebuild the embedded models: `python -m lora_lightning.demo.build --folder BUILD STAGE[=SECONDS] ...`.

Stages, in order: prepare (CPU, npm) vae judge encoder captioner flux distill refine (GPU) export evaluate data.
Every GPU stage runs for the given seconds of wall-clock and leaves its weights in BUILD, so stages can be
run on different machines and repeated. `all` runs everything with the seconds that the shipped weights took.
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path

from .pretrain.common import Settings

SECONDS = {
    "prepare": 0,
    "vae": 170,
    "judge": 90,
    "encoder": 110,
    "captioner": 500,
    "flux": 1000,
    "distill": 110,
    "refine": 500,
    "export": 0,
    "evaluate": 0,
    "data": 0,
}


def main() -> None:
    """Run the named stages one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", metavar="STAGE[=SECONDS]", help=f"all, or some of: {' '.join(SECONDS)}")
    parser.add_argument("--folder", type=Path, required=True, help="the build folder")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--toy", action="store_true", help="tiny batches: try the scripts on a CPU")
    parser.add_argument("--workers", type=int, default=6, help="processes that make scenes and captions")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for request in list(SECONDS) if options.stages == ["all"] else options.stages:
        name, _, seconds = request.partition("=")
        if name not in SECONDS:
            parser.error(f"unknown stage {name!r}; stages are {', '.join(SECONDS)}")
        settings = Settings(
            options.folder,
            float(seconds or SECONDS[name]),
            options.device,
            options.toy,
            options.workers,
            options.seed,
            options.eager,
        )
        options.folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        module = importlib.import_module(f".pretrain.{name}", __package__)
        step = module.train if hasattr(module, "train") else module.run
        step(settings)
        print(f"[build] {name}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
