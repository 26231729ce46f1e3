"""How fast it goes, how much memory it takes, and where the time goes: scalars in TensorBoard."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lora_lightning.models.device import peak_memory_mib
from lora_lightning.runs.callback import Report

EVERY_SECONDS = 10.0


class Meter(Callback):
    """Samples a second (validation, samples and checkpoints not counted), peak memory, seconds of each phase.

    They go to TensorBoard alone: metrics.jsonl holds what is the same in every run of a recipe.

    Args:
        report: of this fit.
        device: whose memory.
    """

    def __init__(self, report: Report, device: torch.device) -> None:
        self.report, self.device = report, device
        self.samples = 0
        self._last = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write every few seconds."""
        self.samples += len(batch.sigma_B) * trainer.world_size
        if time.monotonic() - self._last >= EVERY_SECONDS:
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        self._last = time.monotonic()
        seconds = self.report.seconds
        figures = {f"seconds/{phase}": spent for phase, spent in seconds.items()}
        if seconds.get("training"):
            figures["speed/samples_per_second"] = self.samples / seconds["training"]
        figures["memory/peak_mib"] = peak_memory_mib(self.device)
        if trainer.logger:
            trainer.logger.log_metrics(figures, trainer.global_step)
