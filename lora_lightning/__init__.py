"""LoRA Lightning: caption -> train -> evaluate -> generate -> publish, for FLUX LoRAs."""

import os

__version__ = "0.1.0"

# OpenMP's threads spin while they wait for each other. Beside a browser and a dashboard on a few cores that costs a
# small model most of its speed (0.7 against 15 steps/s with two busy cores, see docs/lab_notes.md). Read when torch
# loads, so it is set before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Blocks of the GPU memory that grow: without them a step of 40 GiB held 48 (docs/performance.md).
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
