"""What a run continues from: a LoRA file, or another run's checkpoint."""

from pathlib import Path

from lora_lightning.models.lora_files.diffusers import read_header
from lora_lightning.train.checkpoints import SUFFIX, newest
from lora_lightning.workspace import Workspace


def find(name: str, workspace: Workspace) -> Path | None:
    """The file of a finished LoRA, of a run or of a path; looked into before anything is encoded.

    Args:
        name: of any of them; empty for none.
        workspace: that LoRAs and runs are in.

    Raises:
        LoraFileError: it cannot be read.
    """
    if not name:
        return None
    path = workspace.lora(name) if name in workspace.lora_names() else Path(name).expanduser()
    if not path.is_file() and "/" not in name and (found := newest(workspace.run(name) / "checkpoints")):
        return found.path
    if path.suffix != SUFFIX:
        read_header(path)
    return path
