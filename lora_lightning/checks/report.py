"""What `check` found: blockers, warnings, and estimates of what the run will take."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_lightning.errors import Problem


@dataclass(frozen=True)
class Estimate:
    """One figure about a run that has not begun.

    Attributes:
        name: of the figure, such as `time`.
        shown: in words, with its unit; `unknown` where nothing is known.
        why: what it rests on.
        amount: in `unit`; None where nothing is known.
        unit: such as `seconds`, `GiB`.
        limit: what this machine has, in `unit`; None where nothing is known.
    """

    name: str
    shown: str
    why: str
    amount: float | None = None
    unit: str = ""
    limit: float | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.shown} ({self.why})"


@dataclass
class Report:
    """Blockers stop the run; warnings say what it will do."""

    blockers: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    estimates: list[Estimate] = field(default_factory=list)

    def block(self, where: str, message: str, hint: str = "") -> None:
        """Add what stops the run."""
        self.blockers.append(Problem(where, message, hint))

    def warn(self, where: str, message: str, hint: str = "") -> None:
        """Add what the user should know before it starts."""
        self.warnings.append(Problem(where, message, hint))

    def as_dict(self) -> dict[str, Any]:
        """The report of the command line's JSON."""
        return {name: [vars(each) for each in found] for name, found in vars(self).items()}


def counted(count: int, noun: str, rest: str = "") -> str:
    """`1 picture is small`, `3 pictures are small`: `rest` follows upon is or are."""
    verb = f" {'is' if count == 1 else 'are'} {rest}" if rest else ""
    return f"{count:,} {noun}{'' if count == 1 else 's'}{verb}"


def example(names: Sequence[str]) -> str:
    """One of several things, as the reader may know it."""
    return f", such as {names[0]}" if names else ""
