"""Commits every caption to its dataset as it lands."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from lora_lightning.caption.module import Result
from lora_lightning.caption.progress import Tally
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.errors import CaptionConflict, DatasetError

log = logging.getLogger("lora_lightning")


class CaptionWriter:
    """Stores captions; one that a person wrote meanwhile stays.

    Args:
        dataset: that the pictures come from.
        author: the captioner's name.
        details: stored with each caption: what it takes to write it again.
        tell: is given the tally after each caption; it may stop the work.
    """

    def __init__(
        self,
        dataset: Dataset,
        author: str,
        details: Mapping[str, object],
        tell: Callable[[Tally], None],
    ) -> None:
        self.tally = Tally()
        self._dataset, self._author, self._details, self._tell = dataset, author, details, tell
        self._started: float | None = None
        self._told = 0

    def fresh(self, _batch: object) -> int:
        """How many pictures are done since this was asked last; a batch is not done when the next begins."""
        fresh, self._told = self.tally.done - self._told, self.tally.done
        return fresh

    def start(self) -> None:
        """The captioner is loaded: start the clock."""
        self._started = time.monotonic()

    def write(self, results: Sequence[Result]) -> None:
        """Store results.

        Raises:
            Stopped: a stop was requested; what is here is stored.
        """
        for result in results:
            self._store(result)
        self.tally.done += len(results)
        self.tally.seconds = time.monotonic() - self._started if self._started else 0.0
        self._tell(self.tally)

    def _store(self, result: Result) -> None:
        picture = result.picture
        if result.reason:
            self._fail(picture, result.reason)
            return
        try:
            self._dataset.write_caption(
                picture.id,
                result.text,
                author=self._author,
                details=self._details,
                expected_version=picture.version,
                kind=picture.kind,
            )
        except CaptionConflict:
            log.info("%s: its caption was changed meanwhile and stays", picture.name)
        except DatasetError as error:
            self._fail(picture, error.message)
        else:
            self.tally.captioned += 1

    def _fail(self, picture: Picture, reason: str) -> None:
        log.warning("%s: %s", picture.name, reason)
        self.tally.failed.append({"file": picture.name, "id": picture.id, "reason": reason})
