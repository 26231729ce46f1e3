"""From the folder of a captioner to the plugin that opens it."""

from pathlib import Path

import torch

from lora_lightning import plugins
from lora_lightning.caption.base import Captioner, Quantize, Streaming
from lora_lightning.errors import ModelError
from lora_lightning.runs.files import read_json

KIND = "caption/captioners"


def open_captioner(folder: Path, device: torch.device, quantize: Quantize = "none") -> Captioner | Streaming:
    """Open a model folder with the plugin for its architecture.

    Raises:
        ModelError: it is damaged, or no plugin knows its architecture.
    """
    config = read_json(folder / "config.json")
    found = config.get("model_type") or config.get("architecture")
    known = []
    for name in plugins.names(KIND):
        plugin = plugins.load(KIND, name)
        if found in plugin.MODEL_TYPES:
            opened: Captioner | Streaming = plugin.build(folder, device, quantize)
            return opened
        known += plugin.MODEL_TYPES
    raise ModelError(
        f"captioner {folder} is a {found or 'folder without an architecture'}, which cannot describe pictures here",
        f"Known architectures: {', '.join(known)}.",
    )
