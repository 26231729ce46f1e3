"""LoRAs on a pipeline: W x + sum_i w_i B_i A_i x, by peft; exact and additive, nothing is merged into W."""

from collections.abc import Mapping, Sequence

from diffusers import DiffusionPipeline

from lora_lightning.generate.library import LoraSource
from lora_lightning.generate.prompt import Lora
from lora_lightning.models.lora_files.diffusers import load


class Mix:
    """The LoRAs of one pipeline; each file is loaded once.

    Args:
        pipeline: without adapters.
        sources: by the name that prompts call them.

    Raises:
        LoraFileError: a file is damaged, or was made for another kind of model.
    """

    def __init__(self, pipeline: DiffusionPipeline, sources: Mapping[str, LoraSource]) -> None:
        self._pipeline = pipeline
        self._adapters = {name: f"lora{place}" for place, name in enumerate(sources)}  # peft allows no dots in names
        for name, source in sources.items():
            load(pipeline, source.path, self._adapters[name])

    def use(self, loras: Sequence[Lora]) -> None:
        """Let exactly these act; with none, or with weights of 0, the base draws bit for bit as it did before."""
        acting = [lora for lora in loras if lora.weight]
        if acting:
            self._pipeline.enable_lora()
            self._pipeline.set_adapters(
                [self._adapters[lora.name] for lora in acting], [lora.weight for lora in acting]
            )
        elif self._adapters:
            self._pipeline.disable_lora()
