"""What happens between the steps of a training, and when: checkpoints, validation, stages, samples, figures."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning.pytorch import Callback

from lora_lightning.models.base import TextEmbedding
from lora_lightning.models.sampling import Shot
from lora_lightning.runs.callback import Report
from lora_lightning.train.callbacks.checkpoint import Checkpoints
from lora_lightning.train.callbacks.guard import Guard
from lora_lightning.train.callbacks.meter import Meter
from lora_lightning.train.callbacks.pictures import PictureLosses
from lora_lightning.train.callbacks.samples import Samples
from lora_lightning.train.callbacks.stages import StageGate
from lora_lightning.train.callbacks.validation import Validation
from lora_lightning.train.checkpoints import Checkpoint, steps
from lora_lightning.train.encode import Item
from lora_lightning.train.module import LoraTraining
from lora_lightning.train.ranks import Ranks
from lora_lightning.train.stages import Stages
from lora_lightning.train.validation import HeldOut
from lora_lightning.train.window import Record


@dataclass(frozen=True)
class Watch:
    """Rhythms in steps, and what is measured.

    Attributes:
        checkpoint_every: steps between checkpoints.
        sample_every: between samples; 0 for none.
        validate_every: between validations.
        stages: of the training; their ends are validated too.
        record: of the validations; None without held-out pictures, and `held_out` likewise.
        early_stop: end when validation shows overfitting.
    """

    checkpoint_every: int
    sample_every: int
    validate_every: int
    stages: Stages
    record: Record | None = None
    held_out: HeldOut | None = None
    early_stop: bool = False

    def validates(self, step: int) -> bool:
        """Whether held-out pictures are looked at after a step."""
        return self.record is not None and (step % self.validate_every == 0 or self.stages.boundary(step))

    def needs_checkpoint(self, step: int) -> bool:
        """Whether something happens after a step that must find it saved."""
        samples = self.sample_every > 0 and step % self.sample_every == 0
        return samples or self.validates(step) or self.stages.boundary(step)

    def end(self, steps: int, checkpoint: Checkpoint | None) -> int:
        """The last step, when a run goes on from a checkpoint; what was measured after that will be measured again."""
        if self.record is None or checkpoint is None:
            return steps
        self.record.forget_after(checkpoint.step)
        return checkpoint.step if self.early_stop and self.record.should_stop() else steps

    def callbacks(
        self,
        report: Report,
        module: LoraTraining,
        items: Sequence[Item],
        shots: Sequence[Shot],
        texts: Sequence[TextEmbedding],
        ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    ) -> list[Callback]:
        """In their order: first what counts, then the checkpoint, then what may only happen once it is safe."""
        run = report.reporter.run

        def name_of(item: int) -> str:
            return items[item].file

        def spare() -> set[int]:
            if self.record is None:
                return set()
            chosen = {self.record.proposed(steps(run.checkpoints)), self.record.best()}
            return {step for step in chosen if step is not None} | self.stages.starts

        found: list[Callback] = [
            Guard(name_of, ranks),
            PictureLosses(run.path / "pictures.jsonl", name_of, ranks),
            Meter(report, module.family.device),
            Checkpoints(report, self.checkpoint_every, self.needs_checkpoint, spare, ranks),
        ]
        if self.record is not None and self.held_out is not None:
            found.append(Validation(report, self.held_out, self.record, self.validates, self.early_stop))
        found.append(
            Samples(
                report,
                lambda: module.family.pipeline(module.transformer),
                shots,
                texts,
                self.sample_every,
                module.evaluated,
                ranks,
            )
        )
        return [*found, StageGate(report, self.stages)]
