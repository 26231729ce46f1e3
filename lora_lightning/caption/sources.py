"""From the name of a captioner to a folder on this machine, or an error that says what to do."""

from dataclasses import dataclass
from pathlib import Path

from lora_lightning.caption.config import PUBLISHED
from lora_lightning.errors import ModelError
from lora_lightning.models import hub
from lora_lightning.models.config import EMBEDDED

FILES = ["*.json", "*.jinja", "*.model", "*.txt", "*.csv", "*.safetensors"]
HINT = f"Give {', '.join(PUBLISHED)}, a folder with config.json, or a Hub id such as owner/name."


@dataclass(frozen=True)
class Source:
    """A captioner by name, and where its files come from: a folder, or a Hub id."""

    name: str
    location: str

    @property
    def folder(self) -> Path | None:
        """The folder, when it is one."""
        path = Path(self.location)
        return path if path.is_dir() else None


def resolve(captioner: str) -> Source:
    """What a recipe's `caption.captioner` means: a short name, an embedded model, a folder or a Hub id.

    Raises:
        ModelError: it is none of these.
    """
    if captioner in PUBLISHED:
        return Source(captioner, PUBLISHED[captioner])
    if "/" not in captioner and (EMBEDDED / captioner / "config.json").is_file():
        return Source(captioner, str(EMBEDDED / captioner))
    folder = Path(captioner).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"captioner folder {captioner} has no config.json", "Give the folder of a whole model.")
        return Source(folder.resolve().name, str(folder.resolve()))
    if captioner.count("/") != 1 or captioner.startswith(("/", ".", "~")):
        raise ModelError(f"there is no captioner {captioner!r}", HINT)
    return Source(captioner, captioner)


def fetch(source: Source) -> Path:
    """The folder of a captioner; a Hub id is downloaded once and then read from the local cache alone.

    Raises:
        ModelError: it is absent, gated, or the Hub does not answer within seconds.
    """
    return source.folder or hub.fetch(source.location, FILES)
