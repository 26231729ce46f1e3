"""After the last step: whose weights become the LoRA."""

import logging
from dataclasses import dataclass
from pathlib import Path

from lora_lightning.train.callbacks.stages import say, take_over
from lora_lightning.train.checkpoints import path_of, steps
from lora_lightning.train.module import LoraTraining
from lora_lightning.train.validation import look
from lora_lightning.train.watch import Watch

log = logging.getLogger("lora_lightning")


@dataclass(frozen=True)
class Choice:
    """The last step made, the one whose weights are in place now, and the one that validation proposes."""

    last: int
    step: int
    proposed: int | None


def choose(module: LoraTraining, watch: Watch, folder: Path, last: int, result: str) -> Choice:
    """Put the weights in place that are to be saved.

    Args:
        module: as the last step left it.
        watch: of the training.
        folder: of its checkpoints.
        last: the last step.
        result: "last", or "best": what validation proposes.
    """
    if watch.record is None or watch.held_out is None:
        return Choice(last, last, None)
    if watch.validates(last) and last not in watch.record.losses:  # killed between the checkpoint and the look
        look(module, watch.held_out, watch.record, last)
    proposed = watch.record.proposed(steps(folder))
    for verdict in watch.stages.verdicts(last)[-1:]:
        say(verdict, watch.stages.ends)
    wanted = watch.stages.source(last)
    if proposed is None:
        log.warning("no checkpoint is better than the base on the held-out pictures")
    else:
        percent = watch.record.change(proposed).percent
        log.info("validation proposes step %d: held-out loss %+.2f %% against the base", proposed, percent)
        wanted = proposed if result == "best" else wanted
    if wanted != last and not take_over(module, folder, wanted):
        wanted = last
    return Choice(last, wanted, proposed)


def report(watch: Watch, choice: Choice, folder: Path) -> dict[str, object]:
    """What validation said, for the result of the run."""
    record = watch.record
    if record is None or not record.steps:
        return {}
    found: dict[str, object] = {
        "held_out_change_percent": {step: round(record.change(step).percent, 3) for step in record.steps},
        "proposed_step": choice.proposed,
    }
    if choice.proposed is not None:
        found["proposed_checkpoint"] = str(path_of(folder, choice.proposed).resolve())
    verdicts = watch.stages.verdicts(watch.stages.ends[-1])
    if verdicts:
        found["stages"] = [
            {"end": v.end, "kept": v.kept, "held_out_change_percent": round(v.change.percent, 3)} for v in verdicts
        ]
    return found
