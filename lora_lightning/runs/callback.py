"""Lightning's loops as a run shows them: progress, figures, and an end between steps when a stop is requested."""

import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lora_lightning.errors import Diverged
from lora_lightning.runs.reporter import Reporter

FLUSH_EVERY_SECONDS = 0.5
FINAL_LOSS_STEPS = 50


class Report(Callback):
    """Feeds a Reporter from `fit` or `predict`.

    In fit it is the first callback: it collects each step's loss, and whatever else `figures` gives,
    without waiting for the device; they are fetched and written twice a second. A requested stop ends the fit after
    the step at hand; the job asks `reporter.check_stop()` afterwards. In predict it is the last callback, after the one
    that stores the batch, and raises Stopped between batches.

    Example:
        report = Report(reporter, "captioning", total=len(pictures), count=len)
        Trainer(callbacks=[writer, report], ...).predict(module, loader, return_predictions=False)

    Args:
        reporter: of the run.
        phase: what the loop is called.
        figures: fit: scalars of the step just made, beside its loss.
        total: predict: units of work; fit counts its steps.
        done: predict: units that existed before.
        count: predict: units in a batch.
    """

    def __init__(
        self,
        reporter: Reporter,
        phase: str,
        *,
        figures: Callable[[], Mapping[str, float | Tensor]] = dict,
        total: int = 0,
        done: int = 0,
        count: Callable[[Any], int] = len,
    ) -> None:
        self.reporter = reporter
        self.seconds: dict[str, float] = {}
        self._phase, self._total, self._done, self._count = phase, total, done, count
        self._figures, self._losses = figures, list[Tensor]()
        self._rows: list[dict[str, float | Tensor]] = []
        self._last: deque[float] = deque(maxlen=FINAL_LOSS_STEPS)
        self._trainer: Trainer | None = None
        self._handler: Any = None
        self._first_step = 0
        self._flushed = self._clock = time.monotonic()

    @property
    def steps_per_second(self) -> float:
        """Of this process's steps, without the time spent on anything else."""
        seconds = self.seconds.get(self._phase, 0.0)
        return (self._done - self._first_step) / seconds if seconds else 0.0

    @property
    def final_loss(self) -> float | None:
        """Mean of the last 50 steps of this process."""
        return sum(self._last) / len(self._last) if self._last else None

    @contextmanager
    def aside(self, phase: str, total: int = 0) -> Iterator[None]:
        """Do something else between two steps: figures so far are written, and its time is not the loop's."""
        self.flush()
        self._count_time(self._phase)
        self.reporter.phase(phase, total)
        try:
            yield
        finally:
            self._count_time(phase)
            self.reporter.phase(self._phase, self._total, self._done)

    def flush(self) -> None:
        """Fetch the figures of the steps since the last time, and write them.

        Raises:
            Diverged: a loss is not finite.
        """
        rows, self._rows = [_fetched(row) for row in self._rows], []
        self._flushed = time.monotonic()
        self._count_time(self._phase)
        for row in rows:
            step, figures = int(row.pop("step")), row
            if not math.isfinite(figures["loss"]):
                raise Diverged(
                    f"the loss became {figures['loss']} at step {step}",
                    "Lower train.learning_rate and start anew; the last checkpoint before it is kept.",
                )
            self._last.append(figures["loss"])
            self.reporter.metric(step, **figures)
            if self._trainer and self._trainer.logger:
                self._trainer.logger.log_metrics(figures, step)
        if rows:
            figures = rows[-1] | {"loss": self.final_loss or 0.0, "steps_per_second": self.steps_per_second}
            self.reporter.advance(self._done, **figures)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note our SIGTERM handler before Lightning replaces it."""
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, or go on from a checkpoint."""
        self._restore_handler()
        self._trainer, self._total = trainer, trainer.max_steps
        self._first_step = self._done = trainer.global_step
        self.reporter.phase(self._phase, self._total, self._done)
        self._clock = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Collect; at the end of a whole step also report and look whether to stop."""
        self._losses.append(outputs["loss"])
        if trainer.global_step == self._done:
            return
        self._done = trainer.global_step
        self._rows.append({"step": self._done, "loss": _sum(self._losses), **self._figures()})
        self._losses = []
        if time.monotonic() - self._flushed >= FLUSH_EVERY_SECONDS:
            self.flush()
        if self.reporter.stop_requested:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what is left."""
        self.flush()
        self._show_where_it_stops()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._restore_handler()
        self.reporter.phase(self._phase, self._total, self._done)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the batch, and end here when asked to."""
        self._done += self._count(batch)
        self.reporter.advance(self._done)
        self._show_where_it_stops()
        self.reporter.check_stop()

    def _show_where_it_stops(self) -> None:
        """Progress is written twice a second only; this is the last chance."""
        if self.reporter.stop_requested:
            self.reporter.phase(self._phase, self._total, self._done)

    def _restore_handler(self) -> None:
        """Lightning ends the process with code 0 on SIGTERM, in the middle of things; ours only sets a flag."""
        if self._handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)

    def _count_time(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._clock
        self._clock = now


def _sum(losses: list[Tensor]) -> Tensor:
    """Lightning divides each loss by the number accumulated, so their sum is the step's mean."""
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def _fetched(row: Mapping[str, float | Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items()}
