"""What a run was begun with, so that it is not gone on with as something else."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lora_lightning.errors import InputError
from lora_lightning.runs.files import read_json, write_json
from lora_lightning.runs.folder import RunFolder
from lora_lightning.train.checkpoints import newest

FREE = {
    "train.checkpoint_every", "train.sample_every", "train.gradient_checkpointing", "train.result",
    "train.strategy", "dataset.workers", "lora.kohya_file",
}  # fmt: skip
"""Fields that change nothing of what is learned."""
MOST_SHOWN = 12


def facts(sections: Mapping[str, Any], frozen: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Everything that training depends on: the fields of the recipe, and each picture with its captions.

    Args:
        sections: of the recipe, as plain values.
        frozen: dataset.jsonl, and whatever else a line of which is a picture.
    """
    fields: dict[str, Any] = {}
    for section, values in sections.items():
        parts = values.items() if isinstance(values, Mapping) else [("", values)]
        fields |= {f"{section}.{name}".rstrip("."): value for name, value in parts}
    pictures = {
        f"{path.name} line {place}": hashlib.sha256(line.encode()).hexdigest()[:12]
        for path in frozen
        if path.is_file()
        for place, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    }
    return {"fields": {name: value for name, value in fields.items() if name not in FREE}, "pictures": pictures}


def check_run(run: RunFolder, sections: Mapping[str, Any]) -> None:
    """Go on with what a run was begun with, or not at all.

    Raises:
        InputError: something differs; each difference is named.
    """
    frozen = [path for name in ("dataset", "dataset-*", "regularisation") for path in run.path.glob(f"{name}.jsonl")]
    now = facts(sections, sorted(frozen))
    check(run.path / "identity.json", now, run.name, learned=newest(run.checkpoints) is not None)


def check(path: Path, now: dict[str, dict[str, Any]], run: str, *, learned: bool) -> None:
    """Compare with what the run was begun with; as long as nothing is learned it may still change.

    Args:
        path: of the file that remembers.
        now: from `facts`.
        run: the run's name.
        learned: whether there is a checkpoint.

    Raises:
        InputError: something differs; each difference is named.
    """
    then = read_json(path)
    if not learned or not then:
        write_json(path, now)
        return
    lines = [
        f"  - {name}: {then[kind].get(name, 'absent')} then, {now[kind].get(name, 'absent')} now"
        for kind in now
        for name in {**then[kind], **now[kind]}
        if _differ(then[kind], now[kind], name, strict=kind == "pictures")
    ]
    if lines:
        more = [f"  - and {len(lines) - MOST_SHOWN} more"] if len(lines) > MOST_SHOWN else []
        raise InputError(
            f"run {run!r} was begun with something else:\n" + "\n".join(lines[:MOST_SHOWN] + more),
            f"Put it back to go on. Or begin a new run from these weights: `runs clone {run} lora.init_from={run}`.",
        )


def _differ(then: Mapping[str, Any], now: Mapping[str, Any], name: str, *, strict: bool) -> bool:
    """A field that one of two versions of this program does not know is no difference."""
    if not strict and not (name in then and name in now):
        return False
    return bool(then.get(name) != now.get(name))
