"""Lightning's loops as a run shows them: progress, figures, and an end between steps when a stop is requested."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lora_lightning.runs.reporter import Asked, Reporter

FLUSH_EVERY_SECONDS = 0.5
FINAL_LOSS_STEPS = 50


class Report(Callback):
    """Feeds a Reporter from `fit` or `predict`.

    In fit it is the first callback: it collects each step's loss, and whatever else `figures` gives,
    without waiting for the device; they are fetched and written twice a second. What is asked of the run it looks up
    once a step, for the other callbacks too: `asked`. A requested stop ends the fit after the step at hand; the job
    asks `reporter.check_stop()` afterwards. In predict it is the last callback, after the one that stores the batch,
    and raises Stopped between batches.

    Example:
        report = Report(reporter, "captioning", total=len(pictures), count=len)
        Trainer(callbacks=[writer, report], ...).predict(module, loader, return_predictions=False)

    Args:
        reporter: of the run.
        phase: what the loop is called.
        figures: fit: scalars of the step just made, beside its loss.
        gather: fit: what is asked of each of the processes that train together.
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
        gather: Callable[[Asked], list[Asked]] = lambda asked: [asked],
        total: int = 0,
        done: int = 0,
        count: Callable[[Any], int] = len,
    ) -> None:
        self.reporter = reporter
        self.seconds: dict[str, float] = {}
        self._phase, self._total, self._done, self._count = phase, total, done, count
        self._figures, self._losses, self._gather = figures, list[Tensor](), gather
        self.asked = Asked()
        self._rows: list[dict[str, float | Tensor]] = []
        self._last: deque[float] = deque(maxlen=FINAL_LOSS_STEPS)
        self._trainer: Trainer | None = None
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
        """Fetch the figures of the steps since the last time, and write those that are numbers."""
        rows, self._rows = [_fetched(row) for row in self._rows], []
        self._flushed = time.monotonic()
        self._count_time(self._phase)
        for row in rows:
            step, figures = int(row.pop("step")), row
            if "loss" in figures:
                self._last.append(figures["loss"])
            self.write(step, figures)
        if rows:
            shown = {name: value for name, value in rows[-1].items() if "/" not in name}
            figures = shown | {"loss": self.final_loss or 0.0, "steps_per_second": self.steps_per_second}
            self.reporter.advance(self._done, **figures)

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Write figures of a step to metrics.jsonl and TensorBoard."""
        self.reporter.metric(step, **figures)
        if self._trainer and self._trainer.logger:
            self._trainer.logger.log_metrics(figures, step)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep our handlers of signals, which only set a flag.

        Lightning's ends the process with code 0, in the middle of things, and with several processes it broadcasts from
        within the handler, which the others do not expect.
        """
        trainer._signal_connector.register_signal_handlers = _nothing  # type: ignore[method-assign]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, or go on from a checkpoint."""
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
        loss = trainer.strategy.reduce(_sum(self._losses).clone(), reduce_op="mean")  # it may be changed in place
        assert isinstance(loss, Tensor)
        self._rows.append({"step": self._done, "loss": loss, **self._figures()})
        self._losses = []
        if time.monotonic() - self._flushed >= FLUSH_EVERY_SECONDS:
            self.flush()
        asked = self._gather(self.reporter.asked())
        self.asked = Asked(*(any(of_each) for of_each in zip(*map(astuple, asked), strict=True)))
        if self.asked.stop:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what is left."""
        self.flush()
        self._show_where_it_stops()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
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

    def _count_time(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._clock
        self._clock = now


def _nothing() -> None:
    """In place of registering handlers."""


def _sum(losses: list[Tensor]) -> Tensor:
    """Lightning divides each loss by the number accumulated, so their sum is the step's mean."""
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def _fetched(row: Mapping[str, float | Tensor]) -> dict[str, float]:
    """Plain numbers; what is none (a skipped step, a band without a sample) is left out."""
    plain = {name: float(value) for name, value in row.items()}
    return {name: value for name, value in plain.items() if math.isfinite(value)}
