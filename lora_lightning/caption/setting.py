"""One way to describe pictures: which captioner, asked what."""

from dataclasses import dataclass

import torch

from lora_lightning import plugins
from lora_lightning.caption.base import Captioner, Quantize, Streaming
from lora_lightning.caption.module import Tools
from lora_lightning.caption.opening import KIND, open_captioner
from lora_lightning.caption.plan import Plan
from lora_lightning.caption.sources import Source, fetch
from lora_lightning.errors import ModelError
from lora_lightning.runs.reporter import Reporter


@dataclass(frozen=True)
class Models:
    """What has to be opened: a captioner here or behind an endpoint, and perhaps a tagger."""

    source: Source
    endpoint: str
    quantize: Quantize
    tagger: Source | None


@dataclass(frozen=True)
class Setting:
    """A captioner with its plan.

    Attributes:
        models: that describe.
        plan: what they are asked.
        size: pictures described at once.
    """

    models: Models
    plan: Plan
    size: int

    @property
    def details(self) -> dict[str, object]:
        """How a caption comes about, stored with it: what it takes to write it again."""
        source, sampling = self.models.source, self.plan.sampling
        details: dict[str, object] = {
            "model": source.folder.name if source.folder and not self.models.endpoint else source.location,
            "prompt": self.plan.prompts[0],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": self.plan.seed,
        }
        more: dict[str, object] = {
            "endpoint": self.models.endpoint,
            "quantize": self.models.quantize if self.models.quantize != "none" else "",
            "tagger": self.models.tagger.name if self.models.tagger else "",
            "prompts": list(self.plan.prompts) if len(self.plan.prompts) > 1 else [],
            "draw": self.plan.draw,
            "prefix": self.plan.prefix,
            "suffix": self.plan.suffix,
        }
        return details | {name: value for name, value in more.items() if value}

    def load(self, device: torch.device, reporter: Reporter) -> Tools:
        """Open the models.

        Raises:
            ModelError: one cannot be found, downloaded or opened.
        """
        reporter.phase("loading the captioner")
        captioner: Captioner | Streaming
        if self.models.endpoint:
            captioner = plugins.load(KIND, "openai_api").connect(self.models.endpoint, self.models.source.location)
        else:
            captioner = open_captioner(fetch(self.models.source), device, self.models.quantize)
        if self.models.tagger is None:
            return Tools(captioner)
        tagger = open_captioner(fetch(self.models.tagger), device)
        if isinstance(tagger, Streaming):
            raise ModelError(f"{self.models.tagger.name} is a captioner, not a tagger", "Set caption.tagger=wd-vit.")
        return Tools(captioner, tagger)
