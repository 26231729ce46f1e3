"""The fit itself: from the newest valid checkpoint, or from the start, to the last step."""

import json
import logging
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from lora_lightning.runs.callback import Report
from lora_lightning.runs.files import write_text
from lora_lightning.runs.folder import RunFolder
from lora_lightning.train.checkpoints import AtomicCheckpointIO, Checkpoint
from lora_lightning.train.datamodule import BatchData, Batches
from lora_lightning.train.module import LoraTraining
from lora_lightning.train.ranks import PATIENCE, Ranks
from lora_lightning.train.shards import Sharded

# Lightning tells of devices that are not there, and advertises.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Rhythm:
    """How far, and how a step is made up."""

    steps: int
    accumulate: int
    precision: Literal["bf16-mixed", "32-true"]
    workers: int = 0


def fit(
    module: LoraTraining,
    batches: Batches,
    rhythm: Rhythm,
    report: Report,
    callbacks: list[Callback],
    checkpoint: Checkpoint | None,
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
) -> int:
    """Train until the last step, or until a stop is requested: the caller asks the reporter which.

    Args:
        module: what is trained.
        batches: what it is trained on.
        rhythm: number of steps, accumulation, precision.
        report: the first callback.
        callbacks: the others, in order.
        checkpoint: where to go on from.
        ranks: the processes that train together.

    Returns:
        The last step that is done.
    """
    run, step = report.reporter.run, checkpoint.step if checkpoint else 0
    if checkpoint and step >= rhythm.steps:
        module.restore(AtomicCheckpointIO().load_checkpoint(checkpoint.path))
        return step
    if ranks.main:
        forget_after(run, step)
    # Every process has read the same files, and a frozen base stays the same: sending it around would only take time.
    kind = Sharded if ranks.sharded else DDPStrategy
    together = kind(timeout=PATIENCE, init_sync=False, broadcast_buffers=False, gradient_as_bucket_view=True)
    trainer = Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=ranks.devices,
        num_nodes=ranks.num_nodes,
        strategy=together if ranks.count > 1 else "auto",
        precision=rhythm.precision,
        max_steps=rhythm.steps,
        max_epochs=-1,
        accumulate_grad_batches=rhythm.accumulate,
        callbacks=[report, *callbacks],
        logger=TensorBoardLogger(
            run.tensorboard, name="", version="", default_hp_metric=False, flush_secs=10, purge_step=step + 1
        ),
        plugins=[AtomicCheckpointIO()],
        default_root_dir=run.path,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    data = BatchData(batches, step * rhythm.accumulate, rhythm.workers)
    with warnings.catch_warnings():
        # An item is ready in memory; a worker would only add a process that inherits our signals and locks.
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)  # Python 3.12
        # Nothing is added in place to what a block returns.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
        # Its successor, from torch 2.13 on, would send buffers at the start.
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint.path if checkpoint else None)
    return trainer.global_step


def forget_after(run: RunFolder, step: int) -> None:
    """Drop the metrics of steps that will be made again, and what was measured after the step at hand."""
    rows = [row for row in run.metrics() if row["step"] < step or (row["step"] == step and "loss" in row)]
    if run.metrics_path.is_file():
        write_text(run.metrics_path, "".join(json.dumps(row) + "\n" for row in rows))
