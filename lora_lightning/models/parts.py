"""The parts of a model, loaded when first used, from a diffusers folder or from single files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from diffusers import ModelMixin

from lora_lightning import plugins
from lora_lightning.errors import ModelError
from lora_lightning.models.bfl import Layout, to_diffusers
from lora_lightning.models.source import Source

Loaded = TypeVar("Loaded")


class Parts:
    """What is loaded of one model; each part is kept until `release`.

    Args:
        source: where the parts lie.
        device: where they are loaded to.
    """

    def __init__(self, source: Source, device: torch.device) -> None:
        self.source, self.device = source, device
        self.kept: dict[str, Any] = {}

    def model(self, part: str, kind: Any, dtype: torch.dtype) -> Any:
        """A frozen model of transformers or diffusers, in `dtype`, on the device."""
        key = f"{part} {dtype}"
        if key not in self.kept:
            file = self.source.files.get(part)
            load = _from_file(kind, file, self.source.part(part)) if file else kind.from_pretrained
            model = self.load(part, load, dtype=dtype)
            self.kept[key] = model.to(self.device).eval().requires_grad_(False)
        return self.kept[key]

    def other(self, part: str, kind: Any) -> Any:
        """A tokenizer or processor."""
        if part not in self.kept:
            self.kept[part] = self.load(part, kind.from_pretrained)
        return self.kept[part]

    def transformer(self, kind: Any, dtype: torch.dtype, layout: Layout, quantize: str) -> ModelMixin:
        """The frozen denoiser on the device, never kept; the linears of its blocks quantised by a plugin."""
        if file := self.source.files.get("transformer"):
            model = self.load("transformer", lambda folder, **_: _converted(kind, folder, file, dtype, layout))
        else:
            model = self.load("transformer", kind.from_pretrained, dtype=dtype)
        frozen: ModelMixin = model.requires_grad_(False)
        if quantize != "none":
            plugin = plugins.load("models/quantize", quantize)
            for blocks in (frozen.transformer_blocks, frozen.single_transformer_blocks):
                plugin.quantize(blocks, self.device, dtype)
        return frozen.to(self.device)

    def load(self, part: str, load: Callable[..., Loaded], **options: Any) -> Loaded:
        """Call a `from_pretrained` on the part's folder.

        Raises:
            ModelError: what lies there cannot be read.
        """
        where = self.source.files.get(part, self.source.folder)
        try:
            return load(self.source.part(part), local_files_only=True, **options)
        except Exception as error:
            if "out of memory" in str(error).lower() or isinstance(error, MemoryError):
                raise
            raise ModelError(
                f"{part} of {where} cannot be read: {str(error).splitlines()[0] if str(error) else error!r}",
                "The file may be damaged, or of another model; download the model again.",
            ) from error

    def release(self) -> None:
        """Let go of every part, and give its memory back."""
        self.kept.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _from_file(kind: Any, file: Path, folder: Path) -> Callable[..., Any]:
    """A `from_pretrained` that takes the weights from a single file.

    diffusers converts a VAE; transformers knows the older names of a text encoder's weights.
    """
    if hasattr(kind, "from_single_file"):
        return lambda _, dtype, **__: kind.from_single_file(
            str(file), config=str(folder), dtype=dtype, local_files_only=True
        )

    def load(_: Path, dtype: torch.dtype, **__: Any) -> Any:
        weights = {name: tensor.to(dtype) for name, tensor in safetensors.torch.load_file(file).items()}
        config = kind.config_class.from_pretrained(folder)
        return kind.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)

    return load


def _converted(kind: Any, folder: Path, file: Path, dtype: torch.dtype, layout: Layout) -> Any:
    weights = to_diffusers(safetensors.torch.load_file(file), layout)
    with torch.device("meta"):
        model = kind.from_config(kind.load_config(folder, local_files_only=True))
    wanted = set(model.state_dict())
    if wanted != weights.keys():
        other = sorted(wanted ^ weights.keys())
        raise ValueError(f"{len(other)} weights do not fit this model, such as {other[0]}")
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in weights.items()}, assign=True)
    return model.eval()
