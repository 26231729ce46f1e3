"""When checkpoints are saved."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lora_lightning.errors import Diverged
from lora_lightning.runs.callback import Report
from lora_lightning.runs.space import wait_for_space, when_there_is_space
from lora_lightning.train.checkpoints import keep_newest, path_of
from lora_lightning.train.ranks import Ranks

KEEP = 2


class Checkpoints(Callback):
    """Saves every few steps, before samples are drawn, when asked to (SAVE), before a stop, and at the end.

    The last two are kept while training; the final one joins them. On a full disk it waits for space.

    Args:
        report: of this fit; it stands before this callback.
        every: steps between checkpoints.
        also: other steps that need one, because something is drawn or measured after them.
        spare: steps whose checkpoints are kept beside the last two.
        ranks: the processes that train together; all come to a checkpoint, and the main one writes it.
    """

    def __init__(
        self,
        report: Report,
        every: int,
        also: Callable[[int], bool] = lambda _step: False,
        spare: Callable[[], Collection[int]] = tuple,
        ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    ) -> None:
        self.report, self.reporter = report, report.reporter
        self.folder = report.reporter.run.checkpoints
        self.every, self.also, self.spare, self.ranks = every, also, spare, ranks
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
        if self.ranks.main:
            wait_for_space(self.reporter)
        final = step >= trainer.max_steps
        due = final or step % self.every == 0 or self.also(step)
        asked = self.report.asked
        if due or asked.save or asked.sample or trainer.should_stop:
            with self.report.aside("saving a checkpoint"):
                self._save(trainer, pl_module, step)
                if not final and self.ranks.main:
                    keep_newest(self.folder, KEEP, self.spare())

    def _save(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        if not all(bool(torch.isfinite(weight).all()) for weight in pl_module.state_dict().values()):
            raise Diverged(
                f"the weights are no longer finite at step {step}",
                "Lower train.learning_rate and start anew; the last checkpoint before it is kept.",
            )
        when_there_is_space(
            self.reporter,
            f"the checkpoint of step {step}",
            lambda: trainer.save_checkpoint(path_of(self.folder, step), weights_only=False),
        )
