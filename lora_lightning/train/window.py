"""What validation says: how far a run came, which checkpoint to take, whether it overfits; importing needs no torch.

A record holds, for the base and for each validated step, the losses on the same triples (picture, noise, sigma).
Losses at different sigma differ in scale, so they are never averaged raw: the unit is the mean of log ratios. Two steps
are compared in pairs: the ratios of one (picture, noise) are averaged over sigma, and the standard error is that of
those means.

Shapes: U units (picture, noise), S sigmas.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lora_lightning.runs.files import read_json, write_json
from lora_lightning.train.bands import BANDS

BASE = -1
"""Stands for the base, without the adapter, among the steps."""
PATIENCE = 3
"""Validations in a row that show overfitting before an early stop."""


@dataclass(frozen=True)
class Change:
    """The mean of log ratios, and its standard error: below 0 is better."""

    mean: float
    error: float

    @property
    def better(self) -> bool:
        """By more than chance."""
        return self.mean < -self.error

    @property
    def percent(self) -> float:
        """By how much the loss is higher, or lower, in percent."""
        return 100 * math.expm1(self.mean)


class Record:
    """The losses of every validation of a run, kept in validation.json.

    Args:
        path: of the file.
        writes: whether this process keeps it; others only read it once, at the start.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        stored = read_json(path)
        self.sigmas: list[float] = stored.get("sigmas", [])
        self.losses: dict[int, npt.NDArray[np.float64]] = {
            int(step): np.array(losses) for step, losses in stored.get("losses", {}).items()
        }

    def add(self, step: int, sigmas: list[float], loss_US: npt.NDArray[np.float64]) -> None:
        """Take in, and write, the losses of a step."""
        self.sigmas = sigmas
        self.losses[step] = loss_US
        self._write()

    def forget_after(self, step: int) -> None:
        """Drop what will be made again."""
        self.losses = {known: losses for known, losses in self.losses.items() if known <= step}
        if self.path.is_file():
            self._write()

    @property
    def steps(self) -> list[int]:
        """The steps that were validated after the start, in order."""
        return sorted(step for step in self.losses if step > 0)

    def change(self, step: int, since: int = BASE, band: str = "") -> Change:
        """How the loss of a step differs from that of another, or of the base; in one band, or in all."""
        low, high = BANDS[band] if band else (0.0, math.inf)
        inside_S = [low <= sigma < high for sigma in self.sigmas]
        ratio_U = np.log(self.losses[step][:, inside_S] / self.losses[since][:, inside_S]).mean(axis=1)
        return Change(float(ratio_U.mean()), float(ratio_U.std(ddof=1) / math.sqrt(len(ratio_U))))

    def best(self) -> int | None:
        """The step with the lowest loss; None when nothing is validated or nothing is better than the base."""
        lowest = min(self.steps, key=lambda step: self.change(step).mean, default=None)
        return lowest if lowest is not None and self.change(lowest).mean < 0 else None

    def proposed(self, available: Iterable[int]) -> int | None:
        """Where the usable window opens: the first step, of those available, no worse than the best one but by chance.

        Past the lowest loss the likeness stays and the variety falls, so the earliest good checkpoint is the one to
        take.
        """
        best = self.best()
        if best is None:
            return None
        steps = sorted({best} | (set(available) & set(self.steps)))
        return next(step for step in steps if step == best or not self._worse(step, best))

    def overfitted(self, step: int) -> bool:
        """Whether the loss is above the lowest one by more than two standard errors in at least two bands."""
        lowest = min(self.steps, key=lambda known: self.change(known).mean)
        if step <= lowest:
            return False
        changes = [self.change(step, lowest, band) for band in BANDS]
        return sum(change.mean > 2 * change.error for change in changes) >= 2

    def should_stop(self) -> bool:
        """Whether the last validations all show overfitting."""
        last = self.steps[-PATIENCE:]
        return len(last) == PATIENCE and all(self.overfitted(step) for step in last)

    def figures(self, step: int) -> dict[str, float]:
        """The loss as a multiple of the base's: 1 is like the base, less is better; in all and by band."""
        ratios = {f"validation/{band or 'all'}": math.exp(self.change(step, band=band).mean) for band in ("", *BANDS)}
        return ratios | {"validation/error": self.change(step).error}

    def _worse(self, step: int, than: int) -> bool:
        change = self.change(step, than)
        return change.mean > change.error

    def _write(self) -> None:
        losses = {str(step): loss_US.tolist() for step, loss_US in sorted(self.losses.items())}
        if self.writes:
            write_json(self.path, {"sigmas": self.sigmas, "base": BASE, "losses": losses})
