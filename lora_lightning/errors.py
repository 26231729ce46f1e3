"""Every error that a person may see, as one tree.

LoraLightningError            message (what happened), hint (what to do now)
├── InputError                exit code 2: something the user gave is wrong
│   ├── RecipeError           carries every problem of a recipe at once
│   ├── NameProblem           a name that cannot be used, or is taken
│   ├── DatasetError          a dataset, its pictures or its captions
│   │   └── CaptionConflict   the caption changed since it was read
│   ├── ModelError            a base model or captioner that cannot be found or opened
│   ├── LoraFileError         a LoRA file that cannot be read
│   └── PublishError          token, repository or permission
├── JobError                  exit code 1: the work itself failed
│   ├── DiskFull              no space left while writing
│   ├── OutOfMemory           the device has too little memory
│   └── Diverged              the loss is no longer finite
└── Stopped                   exit code 143: stopped on request, state saved
"""

import errno
from dataclasses import dataclass


class LoraLightningError(Exception):
    """Base of the tree; `hint` says what to do now.

    Args:
        message: what happened, naming the thing and its value.
        hint: the way out, as an instruction.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.report: dict[str, object] = {}

    def as_dict(self) -> dict[str, object]:
        """The error as the `error` object of the command line's JSON."""
        return {"kind": type(self).__name__, "message": self.message, "hint": self.hint, "problems": []}


class InputError(LoraLightningError):
    """What the user gave is wrong; nothing was done."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One mistake: where it is (`train.steps`), what is wrong, and the fix."""

    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class RecipeError(InputError):
    """All problems of one recipe."""

    def __init__(self, problems: list[Problem], source: str = "recipe") -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"{count} in {source}:\n{lines}", "Correct the fields named above and run the command again.")
        self.problems = problems

    def as_dict(self) -> dict[str, object]:
        """The error with its problems as objects."""
        problems = [{"where": p.where, "message": p.message, "hint": p.hint} for p in self.problems]
        return super().as_dict() | {"problems": problems}


class NameProblem(InputError):
    """A name that cannot be used, or is taken."""


class DatasetError(InputError):
    """A dataset, its pictures or its captions."""


class CaptionConflict(DatasetError):
    """The caption changed since it was read; `current` is what is stored now."""

    def __init__(self, message: str, current: str) -> None:
        super().__init__(message, "Compare both texts and save the one you want.")
        self.current = current


class ModelError(InputError):
    """A base model or captioner that cannot be found or opened."""


class LoraFileError(InputError):
    """A LoRA file that cannot be read."""


class PublishError(InputError):
    """Token, repository or permission."""


class JobError(LoraLightningError):
    """The work itself failed."""


class DiskFull(JobError):
    """No space left while writing."""


class OutOfMemory(JobError):
    """The device has too little memory for this recipe."""


class Diverged(JobError):
    """The loss is no longer finite."""


class Stopped(LoraLightningError):
    """Stopped on request, with everything so far saved."""

    exit_code = 143


def translate(error: BaseException) -> LoraLightningError:
    """The error of this tree that says what an arbitrary exception means to the user."""
    if isinstance(error, LoraLightningError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Stopped("stopped by Ctrl-C")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        where = f" while writing {error.filename}" if error.filename else ""
        return DiskFull(f"no space left on the disk{where}", "Free some space, then run the same command again.")
    if isinstance(error, PermissionError):
        return JobError(f"no permission for {error.filename}", "Make it accessible, or choose another --home.")
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return OutOfMemory(
            "out of memory: " + (str(error).splitlines() or ["the machine has none left"])[0],
            "Set model.low_vram=true, lower dataset.resolutions or train.batch_size, then resume the run.",
        )
    return JobError(f"{type(error).__name__}: {error}", "The log holds the details.")
