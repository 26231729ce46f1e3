"""Pictures drawn while training: the same prompts and seeds each time."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from diffusers import DiffusionPipeline
from lightning.pytorch import Callback, LightningModule, Trainer

from lora_lightning.errors import LoraLightningError
from lora_lightning.models.base import TextEmbedding
from lora_lightning.models.fast.graph import release_graphs
from lora_lightning.models.sampling import Shot, draw, save_png
from lora_lightning.runs.callback import Report
from lora_lightning.train.module import LoraTraining
from lora_lightning.train.ranks import Ranks
from lora_lightning.train.shards import main_alone

log = logging.getLogger("lora_lightning")


class Samples(Callback):
    """Draws at step 0, every few steps, when asked to (SAMPLE), and at the end.

    It stands after the callback that saves checkpoints, so nothing is lost when drawing fails or is stopped; and it
    draws with its own random state, so training is the same with it or without.

    Args:
        report: of this fit.
        pipeline: makes what draws, around the transformer in training.
        shots: what to draw; picture i of a step is `samples/STEP-i.png`.
        texts: the embeddings of their prompts.
        every: steps between samples; 0 draws none.
        weights: puts in place the weights to draw with.
        ranks: the processes that train together; the main one draws.
    """

    def __init__(
        self,
        report: Report,
        pipeline: Callable[[], DiffusionPipeline],
        shots: Sequence[Shot],
        texts: Sequence[TextEmbedding],
        every: int,
        weights: Callable[[], AbstractContextManager[None]] = nullcontext,
        ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    ) -> None:
        self.report, self.reporter = report, report.reporter
        self.folder = report.reporter.run.samples
        self.pipeline, self.shots, self.texts, self.every = pipeline, shots, texts, every
        self.weights, self.ranks = weights, ranks
        self._looked_at = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The base as it is."""
        assert isinstance(pl_module, LoraTraining)
        self._looked_at = trainer.global_step
        if trainer.global_step == 0 and self.every:
            main_alone(pl_module.transformer, self.ranks, lambda: self._draw(0, pl_module))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw if it is time."""
        assert isinstance(pl_module, LoraTraining)
        step = trainer.global_step
        if step == self._looked_at or trainer.should_stop:
            return
        self._looked_at = step
        due = self.every and (step % self.every == 0 or step >= trainer.max_steps)
        if self.report.asked.sample or due:
            main_alone(pl_module.transformer, self.ranks, lambda: self._draw(step, pl_module))

    def _draw(self, step: int, module: LoraTraining) -> None:
        if not self.shots:
            return
        release_graphs(module)
        with self.report.aside("drawing samples", len(self.shots)), self.weights():
            try:
                pipeline = self.pipeline()
                for place, (shot, text) in enumerate(zip(self.shots, self.texts, strict=True)):
                    picture = draw(pipeline, shot, text, self.reporter.check_stop)
                    facts = shot.facts() | {"step": str(step)}
                    save_png(picture, self.folder / f"{step:07d}-{place}.png", facts)
                    self.reporter.advance(place + 1)
            except LoraLightningError:
                raise
            except Exception as error:  # a picture is never worth a training run
                log.warning("samples of step %d could not be drawn: %s: %s", step, type(error).__name__, error)
