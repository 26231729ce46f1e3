"""When held-out pictures are looked at."""

import logging
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lora_lightning.runs.callback import Report
from lora_lightning.train.module import LoraTraining
from lora_lightning.train.preserve import base_alone
from lora_lightning.train.validation import SIGMAS, HeldOut, look
from lora_lightning.train.window import BASE, Record

log = logging.getLogger("lora_lightning")


class Validation(Callback):
    """Measures the base once, then the adapter every few steps; it may end the training early.

    It stands after the callback that saves checkpoints: what it proposes is on the disk.

    Args:
        report: of this fit.
        held_out: what to measure.
        record: where the losses go.
        due: whether to look after a step.
        early_stop: end when the last validations show overfitting.
    """

    def __init__(
        self,
        report: Report,
        held_out: HeldOut,
        record: Record,
        due: Callable[[int], bool],
        early_stop: bool = False,
    ) -> None:
        self.report, self.held_out, self.record = report, held_out, record
        self.due, self.early_stop = due, early_stop
        self._looked_at = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The base; and the step at hand, when a run goes on from a checkpoint that was not looked at."""
        assert isinstance(pl_module, LoraTraining)
        self._looked_at = step = trainer.global_step
        if BASE not in self.record.losses:
            with self.report.aside("validating the base"), base_alone(pl_module.transformer):
                self.record.add(BASE, list(SIGMAS), self.held_out.losses(pl_module))
        if step and self.due(step):
            self._look(trainer, pl_module, step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look if it is time; a requested stop is not kept waiting, the resumed run looks then."""
        assert isinstance(pl_module, LoraTraining)
        step = trainer.global_step
        if step == self._looked_at or trainer.should_stop:
            return
        self._looked_at = step
        if self.due(step):
            self._look(trainer, pl_module, step)

    def _look(self, trainer: Trainer, module: LoraTraining, step: int) -> None:
        with self.report.aside("validating"):
            if step not in self.record.losses:
                look(module, self.held_out, self.record, step)
            self.report.write(step, self.record.figures(step))
            log.info("step %d: held-out loss %+.2f %% against the base", step, self.record.change(step).percent)
        if self.early_stop and self.record.should_stop():
            log.warning("three validations in a row show overfitting: the training ends at step %d", step)
            trainer.should_stop = True
