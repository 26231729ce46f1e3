"""The datasets that a run learns from, each as it was frozen at the first start."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_lightning.datasets.config import Chosen
from lora_lightning.datasets.crops import Augment
from lora_lightning.datasets.store import Dataset
from lora_lightning.train.examples import Example, freeze, freeze_regularisation
from lora_lightning.workspace import Workspace


@dataclass(frozen=True)
class Part:
    """A dataset's part in the training.

    Attributes:
        dataset: where its files lie.
        examples: its pictures.
        augment: which views of them there are.
        repeats: how often each comes in an epoch.
        weight: of their loss.
        taught: whether the trigger word stands for it; not for a regularisation set.
    """

    dataset: Dataset
    examples: Sequence[Example]
    augment: Augment
    repeats: int = 1
    weight: float = 1.0
    taught: bool = True


@dataclass(frozen=True)
class Freezing:
    """How datasets become parts; the names are those of the recipe's fields."""

    trigger: str
    augment: Augment
    all_captions: bool = False
    masks: str = "none"
    references: bool = False

    def parts(self, chosen: Sequence[Chosen], kept: Chosen | None, workspace: Workspace, run: Path) -> list[Part]:
        """Freeze every dataset into a file of the run, or read what was frozen there.

        Args:
            chosen: what is learned, the main dataset first.
            kept: the regularisation set.
            workspace: where they lie.
            run: the run's folder.

        Raises:
            DatasetError: as for `freeze`.
        """
        parts = []
        for number, each in enumerate(chosen, start=1):
            path = run / ("dataset.jsonl" if number == 1 else f"dataset-{number}.jsonl")
            dataset = Dataset.open(workspace.dataset(each.name))
            examples = freeze(
                dataset,
                self.trigger,
                path,
                all_captions=self.all_captions,
                mask_kind=self.masks,
                references=self.references,
            )
            parts.append(Part(dataset, examples, self.augment, each.repeats, each.weight))
        if kept:
            dataset, path = Dataset.open(workspace.dataset(kept.name)), run / "regularisation.jsonl"
            examples = freeze_regularisation(dataset, self.trigger, path, references=self.references)
            parts.append(Part(dataset, examples, self.augment, kept.repeats, kept.weight, taught=False))
        return parts
