"""LoRAs on a pipeline: W x + sum_i w_i B_i A_i x, by peft; exact and additive, nothing is merged into W.

A DoRA rescales what W itself says, so it acts before the others; its weight scales B A inside its norms.
"""

from collections.abc import Mapping, Sequence

from diffusers import DiffusionPipeline

from lora_lightning.errors import InputError
from lora_lightning.generate.library import LoraSource
from lora_lightning.generate.prompt import Lora
from lora_lightning.models.lora_files.diffusers import kind_in, load


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
        self._doras = {name for name, source in sources.items() if kind_in(source.path) == "dora"}

    def use(self, loras: Sequence[Lora]) -> None:
        """Let exactly these act; with none, or with weights of 0, the base draws bit for bit as it did before.

        Raises:
            InputError: two of them are DoRAs, whose changes do not add up.
        """
        acting = sorted((lora for lora in loras if lora.weight), key=lambda lora: lora.name not in self._doras)
        doras = [lora.name for lora in acting if lora.name in self._doras]
        if len(doras) > 1:
            raise InputError(
                f"{doras[0]!r} and {doras[1]!r} are both DoRAs, whose changes do not add up",
                "Use one of them, with any number of other LoRAs.",
            )
        if acting:
            self._pipeline.enable_lora()
            self._pipeline.set_adapters(
                [self._adapters[lora.name] for lora in acting], [lora.weight for lora in acting]
            )
        elif self._adapters:
            self._pipeline.disable_lora()
