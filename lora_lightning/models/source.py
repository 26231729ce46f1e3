"""From the name of a base model to a complete folder on this machine, or an error that says what to do."""

import json
import re
from pathlib import Path

from lora_lightning.errors import ModelError
from lora_lightning.models.hub import fetch

FILES = ["model_index.json", "*/*.json", "*/*.txt", "*/*.model", "*/*.safetensors"]
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def local_folder(source: str) -> Path:
    """The folder of a pipeline in the diffusers layout; a Hub id is downloaded once.

    Everything is loaded from this folder afterwards, so that a lost network can neither stall nor change a run.

    Raises:
        ModelError: it is absent, incomplete, gated, or cannot be downloaded.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _complete(path.resolve(), f"model folder {source}")
    if not HUB_ID.fullmatch(source):
        raise ModelError(
            f"there is no model folder {source}",
            "Give dev, schnell, a folder in the diffusers layout (with model_index.json), or a Hub id.",
        )
    return _complete(fetch(source, FILES), f"the local copy of {source}")


def _complete(folder: Path, what: str) -> Path:
    missing = missing_files(folder)
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ModelError(
            f"{what} is incomplete: {shown} missing",
            "Download the model again; a diffusers folder holds model_index.json and a folder for each part.",
        )
    return folder


def missing_files(folder: Path) -> list[str]:
    """Files that the parts named in model_index.json need and do not have."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ["model_index.json"]
    missing = []
    for part, kind in index.items():
        if not isinstance(kind, list) or kind[0] is None:
            continue
        if part.startswith("tokenizer"):
            wanted = ["tokenizer_config.json"]
        elif part == "scheduler":
            wanted = ["scheduler_config.json"]
        else:
            wanted = ["config.json", *_weights(folder / part)]
        missing += [f"{part}/{name}" for name in wanted if not (folder / part / name).is_file()]
    return missing


def _weights(part: Path) -> list[str]:
    """The weight files of a part: the shards of its index, or any safetensors file."""
    for index in part.glob("*.safetensors.index.json"):
        shards: dict[str, str] = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {})
        return sorted(set(shards.values()))
    return [next((path.name for path in part.glob("*.safetensors")), "*.safetensors")]
