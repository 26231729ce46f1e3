"""The base of every typed section."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
