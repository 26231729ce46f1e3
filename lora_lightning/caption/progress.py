"""How captioning gets on, told by one process or by several that share the pictures."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch.distributed
from torch.multiprocessing.spawn import ProcessRaisedException

from lora_lightning import errors
from lora_lightning.errors import LoraLightningError
from lora_lightning.runs.files import read_json, write_json
from lora_lightning.runs.reporter import Reporter

ERROR = "error.json"


@dataclass
class Tally:
    """What became of the pictures; `done` counts them all, `seconds` begin when the captioner is loaded."""

    done: int = 0
    captioned: int = 0
    seconds: float = 0.0
    failed: list[dict[str, str | int]] = field(default_factory=list)

    @property
    def images_per_second(self) -> float:
        """Captions written a second."""
        return self.captioned / self.seconds if self.seconds else 0.0


class Shares:
    """The tallies of processes that share the pictures, one file each.

    Args:
        folder: of the run; files of an earlier attempt are forgotten.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def save(self, rank: int, tally: Tally) -> None:
        """Keep the tally of one process."""
        write_json(self.folder / f"{rank}.json", asdict(tally))

    def total(self) -> Tally:
        """All of them together."""
        found = [Tally(**read_json(path)) for path in sorted(self.folder.glob("[0-9]*.json"))]
        return Tally(
            sum(tally.done for tally in found),
            sum(tally.captioned for tally in found),
            max((tally.seconds for tally in found), default=0.0),
            [failure for tally in found for failure in tally.failed],
        )

    @contextmanager
    def keeping_errors(self) -> Iterator[None]:
        """Leave an error of ours where the process that started this one finds it."""
        try:
            yield
        except LoraLightningError as error:
            write_json(self.folder / ERROR, error.as_dict())
            raise

    def known(self, error: ProcessRaisedException) -> BaseException:
        """What ended a process: the error of ours that it left behind, or what torch says."""
        left = read_json(self.folder / ERROR)
        kind = getattr(errors, str(left.get("kind")), None)
        return kind(left["message"], left["hint"]) if kind else error


class Progress:
    """Tells a run how far its pictures are; of several processes the first one tells for all.

    Args:
        reporter: of the run.
        shares: where there are several processes.
    """

    def __init__(self, reporter: Reporter, shares: Shares | None = None) -> None:
        self._reporter, self._shares = reporter, shares

    def __call__(self, tally: Tally) -> None:
        """Take note of this process's tally.

        Raises:
            Stopped: a stop was requested.
        """
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        if self._shares:
            self._shares.save(rank, tally)
            tally = self._shares.total()
        if rank == 0:
            figures = {"images_per_second": round(tally.images_per_second, 3)}
            self._reporter.metric(tally.done, **figures)
            self._reporter.advance(tally.done, **figures)
        self._reporter.check_stop()
