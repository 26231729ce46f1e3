"""Steps whose gradient is not finite: counted, named, and not for long."""

import logging
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lora_lightning.errors import Diverged
from lora_lightning.train.module import LoraTraining
from lora_lightning.train.ranks import Ranks

log = logging.getLogger("lora_lightning")
MOST_SKIPPED = 3


class Guard(Callback):
    """The module skips such steps; the third of a run ends it.

    Args:
        name_of: the picture's file, for the place of an item.
        ranks: the processes that train together; they have one gradient, and each its pictures.
    """

    def __init__(self, name_of: Callable[[int], str], ranks: Ranks = Ranks()) -> None:  # noqa: B008 - frozen
        self.name_of, self.ranks = name_of, ranks
        self.skipped = 0
        self._items: list[int] = []
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from a checkpoint."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at whole steps.

        Raises:
            Diverged: it is one too many.
        """
        assert isinstance(pl_module, LoraTraining)
        self._items += batch.items
        if trainer.global_step == self._step:
            return
        self._step, items, self._items = trainer.global_step, self._items, []
        if not pl_module.skipped:
            return
        self.skipped += 1
        everyones = {item for each in self.ranks.gather(items) for item in each}
        pictures = ", ".join(sorted({self.name_of(item) for item in everyones})) or "an unknown picture"
        log.warning("step %d was skipped: its gradient is not finite (%s)", self._step, pictures)
        if self.skipped == MOST_SKIPPED:
            raise Diverged(
                f"the gradient was not finite in {MOST_SKIPPED} steps, the last of them step {self._step} ({pictures})",
                "Lower train.learning_rate, or take those pictures out, and start anew; the last checkpoint is kept.",
            )

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.skipped = state_dict["skipped"]
