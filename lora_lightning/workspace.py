"""Where datasets, runs and outputs live: `--home`, `$LORA_LIGHTNING_HOME`, or ./workspace."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from lora_lightning.errors import NameProblem

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
WINDOWS_DEVICES = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}


def check_name(name: str, what: str = "name") -> str:
    """Return `name` when it can safely be a folder on every system.

    Raises:
        NameProblem: it cannot; the message names the value and the hint the rule.
    """
    if not NAME.fullmatch(name) or name.endswith(".") or name.split(".")[0].lower() in WINDOWS_DEVICES:
        raise NameProblem(
            f"{what} {name!r} cannot be used",
            "Use 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit, such as 'my-style-lora'.",
        )
    return name


@dataclass(frozen=True)
class Workspace:
    """The folder that holds everything the tool keeps."""

    home: Path

    @classmethod
    def find(cls, home: str | Path | None = None) -> "Workspace":
        """The workspace of this command or dashboard; its folders appear when something is first stored."""
        chosen = home or os.environ.get("LORA_LIGHTNING_HOME") or "workspace"
        return cls(Path(chosen).expanduser().resolve())

    @property
    def datasets(self) -> Path:
        """One folder a dataset."""
        return self.home / "datasets"

    @property
    def runs(self) -> Path:
        """One folder a run."""
        return self.home / "runs"

    @property
    def output(self) -> Path:
        """One folder a finished LoRA."""
        return self.home / "output"

    @property
    def cache(self) -> Path:
        """Content-addressed latents and embeddings; safe to delete."""
        return self.home / "cache"

    def dataset(self, name: str) -> Path:
        """The folder of a dataset, which may not exist yet."""
        return self.datasets / check_name(name, "dataset name")

    def run(self, name: str) -> Path:
        """The folder of a run, which may not exist yet."""
        return self.runs / check_name(name, "run name")

    def lora(self, name: str) -> Path:
        """The file of a finished LoRA, which may not exist yet."""
        return self.output / check_name(name, "LoRA name") / f"{name}.safetensors"

    def dataset_names(self) -> list[str]:
        """Datasets that exist, by name."""
        return sorted(path.parent.name for path in self.datasets.glob("*/dataset.sqlite"))

    def lora_names(self) -> list[str]:
        """Finished LoRAs, by name."""
        return sorted(path.name for path in self.output.glob("*") if (path / f"{path.name}.safetensors").is_file())
