"""The run folder: the only interface between the dashboard and the work.

    RUN/  recipe.yaml (resolved, immutable)  state.json (atomic)  run.lock (flock)  result.json
          metrics.jsonl  log.txt  tb/  checkpoints/  samples/  control/{STOP,SAVE,SAMPLE}

What is shown is derived from (lock held?, state.json, result.json); no process number is ever the truth.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lora_lightning.errors import NameProblem
from lora_lightning.runs.files import Lock, read_json, settled_json, write_json
from lora_lightning.workspace import Workspace

State = Literal["queued", "running", "stopping", "paused", "stopped", "interrupted", "failed", "completed"]
LIVE: tuple[State, ...] = ("queued", "running", "stopping", "paused")
STARTING_SECONDS = 20.0
RESUMABLE: tuple[State, ...] = ("stopped", "interrupted", "failed")


@dataclass(frozen=True)
class Status:
    """What a run is doing, as shown to a person."""

    name: str
    verb: str
    state: State
    phase: str = ""
    done: int = 0
    total: int = 0
    eta_seconds: float | None = None
    message: str = ""
    hint: str = ""
    figures: dict[str, float] | None = None
    created: float = 0.0
    started: float = 0.0
    updated: float = 0.0
    queue_order: float = 0.0
    device: str = ""
    wanted: str = ""
    error: str = ""
    seconds: dict[str, float] | None = None

    @property
    def live(self) -> bool:
        """Whether a process stands behind it."""
        return self.state in LIVE

    @property
    def progress(self) -> float:
        """Share of the present phase that is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


class RunFolder:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = Lock(path / "run.lock")

    @classmethod
    def open(cls, workspace: Workspace, name: str) -> "RunFolder":
        """A run that exists.

        Raises:
            NameProblem: there is none of that name.
        """
        run = cls(workspace.run(name))
        if not run.recipe_path.is_file():
            raise NameProblem(f"there is no run {name!r}", "`python -m lora_lightning runs` lists those there are.")
        return run

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def recipe_path(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def log_path(self) -> Path:
        """What the run printed."""
        return self.path / "log.txt"

    @property
    def metrics_path(self) -> Path:
        """One JSON object a line: step and scalars."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard events."""
        return self.path / "tb"

    @property
    def checkpoints(self) -> Path:
        """What a resume starts from."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """Pictures drawn by the run."""
        return self.path / "samples"

    def read_state(self) -> dict[str, Any]:
        """state.json as it is."""
        return read_json(self.path / "state.json")

    def write_state(self, **changes: object) -> None:
        """Merge changes into state.json; the dashboard, the supervisor and the work may all write."""
        writing = Lock(self.path / "state.lock")
        writing.acquire(timeout_seconds=5)
        try:
            write_json(self.path / "state.json", self.read_state() | changes | {"updated": time.time()})
        finally:
            writing.release()

    def result(self) -> dict[str, Any]:
        """What the run made, or empty."""
        return settled_json(self.path / "result.json")

    def request(self, control: Literal["STOP", "SAVE", "SAMPLE"]) -> None:
        """Ask the running work for something; it looks between steps."""
        folder = self.path / "control"
        folder.mkdir(exist_ok=True)
        (folder / control).touch()

    def requested(self, control: Literal["STOP", "SAVE", "SAMPLE"]) -> bool:
        """Whether somebody asked."""
        return (self.path / "control" / control).exists()

    def take(self, control: Literal["SAVE", "SAMPLE"]) -> bool:
        """Whether somebody asked; the request is struck off."""
        asked = self.requested(control)
        (self.path / "control" / control).unlink(missing_ok=True)
        return asked

    def forget_stop(self, before: float = float("inf")) -> None:
        """Strike off a stop that was requested before a moment: it was meant for an earlier process."""
        path = self.path / "control" / "STOP"
        if path.exists() and path.stat().st_mtime < before:
            path.unlink(missing_ok=True)

    def status(self) -> Status:
        """The true state, derived from the lock, the state file and the result."""
        stored = settled_json(self.path / "state.json")
        state, message, hint = _derive(self, stored)
        return Status(
            name=self.name,
            verb=stored.get("verb", "train"),
            state=state,
            phase=stored.get("phase", ""),
            done=stored.get("done", 0),
            total=stored.get("total", 0),
            eta_seconds=stored.get("eta_seconds") if state == "running" else None,
            message=message,
            hint=hint,
            figures=stored.get("figures", {}),
            created=stored.get("created", 0.0),
            started=stored.get("started", 0.0),
            updated=stored.get("updated", 0.0),
            queue_order=stored.get("queue_order", 0.0),
            device=stored.get("device", ""),
            wanted=stored.get("wanted", ""),
            error=stored.get("error", "") if state == "failed" else "",
            seconds=stored.get("seconds", {}),
        )

    def metrics(self) -> list[dict[str, float]]:
        """Every row of metrics.jsonl that is complete."""
        try:
            text = self.metrics_path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.split("\n")[:-1] if line]

    def log_tail(self, limit_bytes: int = 64 * 1024) -> str:
        """The end of the log, whole lines, with progress bars' overwritten parts left out."""
        try:
            with self.log_path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - limit_bytes))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        lines = text.split("\n")[1 if size > limit_bytes else 0 :]
        return "\n".join(line.rsplit("\r", 1)[-1] for line in lines)


def runs(workspace: Workspace) -> list[RunFolder]:
    """Every run of a workspace, the newest first."""
    found = [RunFolder(path.parent) for path in workspace.runs.glob("*/recipe.yaml")]
    return sorted(found, key=lambda run: settled_json(run.path / "state.json").get("created", 0.0), reverse=True)


def _derive(run: RunFolder, stored: dict[str, Any]) -> tuple[State, str, str]:
    state: State = stored.get("state", "interrupted")
    message, hint = stored.get("message", ""), stored.get("hint", "")
    if run.lock.held():
        if state == "running" and run.requested("STOP"):
            return "stopping", "finishing this step, then saving", ""
        return (state if state in LIVE else "running"), message, hint
    if state == "completed":
        missing = [path for path in _artefacts(run.result()) if not Path(path).exists()]
        if missing:
            return "failed", f"the result {missing[0]} is gone", "Resume the run to make it again."
        return state, message, hint
    if state == "queued" and stored.get("launched", 0.0) > time.time() - STARTING_SECONDS:
        return "queued", message or "starting", hint
    if state in LIVE:
        reason = message if stored.get("ended") else "the process ended without saying why"
        return "interrupted", reason, "Resume it: it goes on from its last checkpoint."
    return state, message, hint


def _artefacts(result: dict[str, Any]) -> list[str]:
    made = result.get("made", {}).values()
    return [path for value in made for path in (value if isinstance(value, list) else [value])]
