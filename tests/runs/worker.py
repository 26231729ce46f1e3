"""A job of counted steps for the tests of runs/: `python worker.py RUN HOME MODE`."""

import os
import sys
import time
from pathlib import Path

from lora_lightning.errors import LoraLightningError
from lora_lightning.runs import gpu
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.job import perform
from lora_lightning.runs.reporter import Outcome, Reporter
from lora_lightning.workspace import Workspace

MODE = sys.argv[3] if len(sys.argv) > 3 else "count"
if MODE == "two-gpus":
    gpu.gpus = lambda: [gpu.Gpu(index, "Card", 24_000, 0, 0, 0, 0.0) for index in range(2)]


def count(reporter: Reporter) -> Outcome:
    if MODE == "raise":
        raise OSError(28, "No space left on device", "somewhere")
    if MODE == "exit":
        sys.exit(3)
    made = reporter.run.path / "made.txt"
    (reporter.run.path / "sees.txt").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    done = int(made.read_text()) if made.exists() else 0
    reporter.phase("counting", total=600, done=done)
    for number in range(done + 1, 601):
        reporter.check_stop()
        time.sleep(0.0005 if MODE == "fast" else 0.02)
        made.write_text(str(number))
        reporter.advance(number, loss=1 / number)
    return Outcome({"files": [str(made)]}, {"steps": 600})


if __name__ == "__main__":
    try:
        perform(Workspace.find(sys.argv[2]), RunFolder(Path(sys.argv[1])), count)
    except LoraLightningError as error:
        print(error.message, file=sys.stderr)
        sys.exit(error.exit_code)
