"""What every picture costs: its mean loss, and how that compares with the others at the same noise."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lora_lightning.runs.files import write_text
from lora_lightning.train.bands import BANDS, band_of
from lora_lightning.train.module import Batch, LoraTraining
from lora_lightning.train.ranks import Ranks

Sums = dict[str, dict[str, list[float]]]
"""Picture -> band -> [samples, sum of their losses]."""


class PictureLosses(Callback):
    """Collects without waiting for the device, and writes pictures.jsonl with every checkpoint.

    Each row: `file`, `seen` (samples), `loss` (mean), `relative`: the loss as a multiple of what all pictures cost in
    the same bands of sigma; 1 is usual, much more is a picture, or a caption, that does not fit the others.

    Args:
        path: of pictures.jsonl.
        name_of: the picture's file, for the place of an item.
        ranks: the processes that train together, each on pictures of its own; the main one writes.
    """

    def __init__(self, path: Path, name_of: Callable[[int], str], ranks: Ranks = Ranks()) -> None:  # noqa: B008 - frozen
        self.path, self.name_of, self.ranks = path, name_of, ranks
        self.sums: Sums = {}
        self._new: list[tuple[tuple[int, ...], Tensor, Tensor]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Collect one forward pass."""
        assert isinstance(pl_module, LoraTraining)
        self._new.append((batch.items, batch.sigma_B, pl_module.last.each_B))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write what is known."""
        self._add_up()
        checkpoint["pictures"] = self.sums
        if self.ranks.main:
            write_text(self.path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(self.sums)))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on from there."""
        self.sums = checkpoint["pictures"]

    def _add_up(self) -> None:
        if not (new := self._new):  # as when a full disk makes the main process, and no other, write again
            return
        self._new = []
        told = [(items, sigma_B.tolist(), each_B.tolist()) for items, sigma_B, each_B in new]
        for each in self.ranks.gather(told):
            for samples in each:
                for item, sigma, loss in zip(*samples, strict=True):
                    bands = self.sums.setdefault(self.name_of(item), {})
                    sums = bands.setdefault(band_of(sigma), [0, 0.0])
                    sums[0] += 1
                    sums[1] += loss


def rows(sums: Sums) -> list[dict[str, Any]]:
    """One row a picture, the most costly first."""
    usual = {}
    for band in BANDS:
        counted = [bands[band] for bands in sums.values() if band in bands]
        if counted:
            usual[band] = sum(total for _, total in counted) / sum(seen for seen, _ in counted)
    found = []
    for file, bands in sums.items():
        seen = sum(count for count, _ in bands.values())
        loss = sum(total for _, total in bands.values()) / seen
        relative = sum(total / usual[band] for band, (_, total) in bands.items()) / seen
        found.append({"file": file, "seen": seen, "loss": round(loss, 6), "relative": round(relative, 4)})
    return sorted(found, key=lambda row: (-row["relative"], row["file"]))
