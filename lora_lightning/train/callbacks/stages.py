"""Between two stages of a training: is the last one kept, and with which weights does the next begin?"""

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lora_lightning.runs.callback import Report
from lora_lightning.train.checkpoints import AtomicCheckpointIO, find
from lora_lightning.train.module import LoraTraining
from lora_lightning.train.stages import Stages, Verdict

log = logging.getLogger("lora_lightning")


class StageGate(Callback):
    """Begins each further stage: with a new optimizer, and without what the last stage did if that did not help.

    It stands after the callbacks that save and validate. Doing it again gives the same, so a run that was killed
    between the checkpoint and the new stage begins the stage when it is resumed.

    Args:
        report: of this fit.
        stages: of the training.
    """

    def __init__(self, report: Report, stages: Stages) -> None:
        self.report, self.stages = report, stages
        self._looked_at = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the stage, when the checkpoint is the last one of the stage before."""
        assert isinstance(pl_module, LoraTraining)
        self._looked_at = trainer.global_step
        self._look(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Begin a stage after the last step of another; after a requested stop that is left to the resumed run."""
        assert isinstance(pl_module, LoraTraining)
        if trainer.global_step == self._looked_at or trainer.should_stop:
            return
        self._looked_at = trainer.global_step
        self._look(trainer, pl_module)

    def _look(self, trainer: Trainer, module: LoraTraining) -> None:
        step = trainer.global_step
        if not self.stages.boundary(step) or step == self.stages.ends[-1]:
            return
        for verdict in self.stages.verdicts(step)[-1:]:
            if verdict.end == step:
                say(verdict, self.stages.ends)
                self.report.write(step, {"stage/kept": float(verdict.kept), "stage/change": verdict.change.mean})
        source = self.stages.source(step)
        if source != step:
            take_over(module, self.report.reporter.run.checkpoints, source)
        trainer.strategy.optimizers = [module.configure_optimizers()]


def say(verdict: Verdict, ends: tuple[int, ...]) -> None:
    """Log a verdict."""
    number = ends.index(verdict.end) + 1
    change = f"held-out loss {verdict.change.percent:+.2f} % (standard error {100 * verdict.change.error:.2f})"
    if verdict.kept:
        log.info("stage %d, to step %d, is kept: %s", number, verdict.end, change)
    else:
        log.warning("stage %d, to step %d, is rolled back to step %d: %s", number, verdict.end, verdict.start, change)


def take_over(module: LoraTraining, folder: Any, step: int) -> bool:
    """Put a step's weights in place; False, with a warning, when its checkpoint is gone or damaged."""
    checkpoint = find(folder, step)
    if checkpoint is None:
        log.warning("the checkpoint of step %d is gone or damaged; the present weights stay", step)
        return False
    module.restore(AtomicCheckpointIO().load_checkpoint(checkpoint.path))
    return True
