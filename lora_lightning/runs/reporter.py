"""What work tells the world: phases, progress, figures; and whether it has been asked to stop."""

import json
import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from lora_lightning.errors import Stopped
from lora_lightning.runs.folder import RunFolder

log = logging.getLogger("lora_lightning")
WRITE_EVERY_SECONDS = 0.5
LOG_EVERY_SECONDS = 10.0


@dataclass(frozen=True)
class Outcome:
    """What a verb made (by the names of the command line's JSON) and what it measured."""

    made: dict[str, str | list[str]] = field(default_factory=dict)
    report: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What is asked of the work: to save and end, to save, to draw samples."""

    stop: bool = False
    save: bool = False
    sample: bool = False


class Reporter:
    """Writes a run's progress and reads the requests made of it.

    Example:
        reporter.phase("caching", total=len(pictures))
        for done, picture in enumerate(pictures, start=1):
            reporter.check_stop()
            ...
            reporter.advance(done)
    """

    def __init__(self, run: RunFolder, above: "Reporter | None" = None) -> None:
        """Report for a run; `above` is the work that this is a part of: it shows the same progress, and may stop it."""
        self.run, self.above = run, above
        self._stop_signal = False
        self._phase = ""
        self._total = 0
        self._paces: dict[str, Pace] = {}
        self._pace = Pace()
        self._seconds: dict[str, float] = run.read_state().get("seconds", {})
        self._phase_since = time.monotonic()
        self._last_write = 0.0
        self._last_log = time.monotonic()

    def phase(self, name: str, total: int = 0, done: int = 0) -> None:
        """Begin, or come back to, a part of the work of `total` units, `done` of which exist already."""
        self._count_time()
        self._phase, self._total = name, total
        self._pace = self._paces.setdefault(name, Pace(done))
        self._pace.rest()
        if self.above:
            self.above.phase(f"{self.run.read_state()['verb']}: {name}", total, done)
        else:
            log.info("%s%s", name, f" ({done}/{total})" if total else "")
        self._write(done, {})

    def advance(self, done: int, **figures: float) -> None:
        """Say how far the phase has come; written to disk at most twice a second."""
        self._pace.tick(done)
        if self.above:
            self.above.advance(done)
        if done >= self._total or time.monotonic() - self._last_write >= WRITE_EVERY_SECONDS:
            self._write(done, figures)

    def metric(self, step: int, **values: float) -> None:
        """Append scalars of one step to metrics.jsonl."""
        with self.run.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | values) + "\n")

    @property
    def stop_requested(self) -> bool:
        """Whether a signal or the STOP file asks to save and end."""
        asked = self._stop_signal or self.run.requested("STOP")
        return asked or (self.above is not None and self.above.stop_requested)

    def asked(self) -> Asked:
        """Everything that is asked now; the requests to save and to draw are struck off."""
        return Asked(self.stop_requested, self.run.take("SAVE"), self.run.take("SAMPLE"))

    def check_stop(self) -> None:
        """End here when asked to.

        Raises:
            Stopped: a stop was requested.
        """
        if self.stop_requested:
            run = self.above.run if self.above else self.run
            raise Stopped("stopped on request", f"`python -m lora_lightning runs resume {run.name}` goes on.")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Turn SIGTERM and SIGINT into a request that the work sees between steps; a second one kills.

        Lightning handles SIGTERM only inside its loops, exits 0 after it, and ignores it in predict; so ours
        stays in place and the loops ask `stop_requested`.
        """

        def ask(number: int, _frame: FrameType | None) -> None:
            if self._stop_signal:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            self._stop_signal = True
            self.run.request("STOP")

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _count_time(self) -> None:
        """Add the time since the last look to the phase at hand; a resumed run counts on."""
        now = time.monotonic()
        if self._phase:
            self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._phase_since
        self._phase_since = now

    def _write(self, done: int, figures: dict[str, float]) -> None:
        now = time.monotonic()
        self._last_write = now
        self._count_time()
        eta_seconds = self._pace.eta_seconds(self._total)
        if now - self._last_log >= LOG_EVERY_SECONDS:
            self._last_log = now
            left = f", about {duration(eta_seconds)} left" if eta_seconds is not None else ""
            shown = "".join(f", {name} {value:.4g}" for name, value in figures.items())
            log.info("%s %d/%d%s%s", self._phase, done, self._total, left, shown)
        self.run.write_state(
            phase=self._phase,
            done=done,
            total=self._total,
            eta_seconds=eta_seconds,
            seconds={phase: round(seconds, 2) for phase, seconds in self._seconds.items()},
            figures=self.run.read_state().get("figures", {}) | figures,
        )


class Pace:
    """Units per second as a moving average, from which an honest ETA follows."""

    def __init__(self, done: int = 0, smoothing: float = 0.05, ticks_before_eta: int = 5) -> None:
        self._done = done
        self._at = time.monotonic()
        self._seconds_per_unit: float | None = None
        self._smoothing = smoothing
        self._wait = ticks_before_eta

    def tick(self, done: int) -> None:
        """Note that `done` units exist now."""
        now = time.monotonic()
        if done > self._done:
            seconds = (now - self._at) / (done - self._done)
            old = self._seconds_per_unit
            self._seconds_per_unit = seconds if old is None else old + self._smoothing * (seconds - old)
            self._done, self._wait = done, self._wait - 1
        self._at = now

    def rest(self) -> None:
        """Do not count the time since the last tick: something else was done."""
        self._at = time.monotonic()

    def eta_seconds(self, total: int) -> float | None:
        """Seconds until `total`, or None while it would be a guess."""
        if self._seconds_per_unit is None or self._wait > 0 or total <= 0:
            return None
        return max(0, total - self._done) * self._seconds_per_unit


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def absolute(*paths: Path) -> list[str]:
    """Paths as the command line's JSON shows them."""
    return [str(path.resolve()) for path in paths]
