"""Stages of a training: which of them were kept, and with whose weights the next begins."""

from dataclasses import dataclass

from lora_lightning.train.window import Change, Record


@dataclass(frozen=True)
class Verdict:
    """On one further stage, from the step that held its start weights to its last."""

    start: int
    end: int
    change: Change

    @property
    def kept(self) -> bool:
        """Whether it lowered the held-out loss by more than chance."""
        return self.change.better


@dataclass(frozen=True)
class Stages:
    """The last steps of the stages, and the validation that judges them; without one, all are kept.

    Everything follows from the record, so a resumed run decides as the first did.
    """

    ends: tuple[int, ...]
    record: Record | None

    def boundary(self, step: int) -> bool:
        """Whether a stage ends here."""
        return step in self.ends

    def verdicts(self, step: int) -> list[Verdict]:
        """On the further stages that have ended by now."""
        if self.record is None:
            return []
        found, start = [], self.ends[0]
        for end in self.ends[1:]:
            if end > step or end not in self.record.losses or start not in self.record.losses:
                break
            verdict = Verdict(start, end, self.record.change(end, since=start))
            found.append(verdict)
            start = end if verdict.kept else start
        return found

    def source(self, step: int) -> int:
        """The step whose weights the training goes on with, or ends with, after the stage that ended at `step`."""
        verdicts = self.verdicts(step)
        if verdicts and verdicts[-1].end == step and not verdicts[-1].kept:
            return verdicts[-1].start
        return step

    @property
    def starts(self) -> set[int]:
        """Steps whose checkpoints a roll-back may need."""
        if self.record is None or len(self.ends) == 1:
            return set()
        return {end for end in self.ends[:-1] if end in self.record.losses and self.source(end) == end}
