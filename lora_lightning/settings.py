"""The base of every typed section."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo


class Settings(BaseModel):
    """Frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


@dataclass(frozen=True)
class Only:
    """When a field is read at all.

    Attributes:
        field: an earlier field of the section that decides it.
        holds: whether with this value of that field it is read.
        shown: the same in words, such as `timesteps=mode`.
    """

    field: str
    holds: Callable[[Any], bool]
    shown: str

    def check(self, model: type[Settings], value: object, info: ValidationInfo) -> None:
        """Raise ValueError for a value that nobody would read: it is set, so somebody thinks it works."""
        default = model.model_fields[str(info.field_name)].default
        if value != default and self.field in info.data and not self.holds(info.data[self.field]):
            raise ValueError(f"applies only with {self.shown}; set that, or leave this at {default!r}")
