"""A folder listing is the registry: one file is one plugin, named by its file."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from lora_lightning.errors import InputError

PACKAGE = Path(__file__).parent


def names(kind: str) -> list[str]:
    """The plugins of a kind such as `datasets/formats`, sorted, without importing any."""
    return sorted(path.stem for path in (PACKAGE / kind).glob("*.py") if not path.stem.startswith("_"))


def load(kind: str, name: str) -> ModuleType:
    """Import one plugin.

    Raises:
        InputError: there is no plugin of that name; the hint lists those there are.
    """
    if name not in names(kind):
        what = kind.rsplit("/", maxsplit=1)[-1].rstrip("s")
        raise InputError(f"there is no {what} {name!r}", f"Choose one of: {', '.join(names(kind))}.")
    return import_module(f"lora_lightning.{kind.replace('/', '.')}.{name}")
