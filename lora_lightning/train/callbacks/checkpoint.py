"""When checkpoints are saved."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lora_lightning.errors import Diverged
from lora_lightning.runs.callback import Report
from lora_lightning.train.checkpoints import keep_newest, path_of

KEEP = 2


class Checkpoints(Callback):
    """Saves every few steps, before samples are drawn, when asked to (SAVE), before a stop, and at the end.

    The last two are kept while training; the final one joins them.

    Args:
        report: of this fit; it stands before this callback.
        every: steps between checkpoints.
        also_every: another rhythm, that of the samples; 0 for none.
    """

    def __init__(self, report: Report, every: int, also_every: int = 0) -> None:
        self.report, self.reporter = report, report.reporter
        self.folder = report.reporter.run.checkpoints
        self._rhythms = [rhythm for rhythm in (every, also_every) if rhythm]
        self._looked_at = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The step that is there already is not to be saved again."""
        self._looked_at = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time, between whole steps only: half-accumulated gradients are not in a checkpoint."""
        step = trainer.global_step
        if step == self._looked_at:
            return
        self._looked_at = step
        final = step >= trainer.max_steps
        due = final or any(step % rhythm == 0 for rhythm in self._rhythms)
        if due | self._asked() | self.reporter.stop_requested | trainer.should_stop:
            with self.report.aside("saving a checkpoint"):
                self._save(trainer, pl_module, step)
                if not final:
                    keep_newest(self.folder, KEEP)

    def _asked(self) -> bool:
        """Whether somebody asked, for a checkpoint or for samples, which come after one."""
        return self.reporter.run.take("SAVE") or self.reporter.run.requested("SAMPLE")

    def _save(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        if not all(bool(torch.isfinite(weight).all()) for weight in pl_module.state_dict().values()):
            raise Diverged(
                f"the weights are no longer finite at step {step}",
                "Lower train.learning_rate and start anew; the last checkpoint before it is kept.",
            )
        trainer.save_checkpoint(path_of(self.folder, step), weights_only=False)
