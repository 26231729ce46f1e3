"""From the name of a base model to its files on this machine, or an error that says what to do."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lora_lightning.errors import ModelError
from lora_lightning.models.config import PUBLISHED
from lora_lightning.models.hub import fetch

SMALL_FILES = ["model_index.json", "*/*.json", "*/*.txt", "*/*.model", "*/*.jinja"]
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

CONFIGS = Path(__file__).parent / "configs"
"""What the Hub pages of published models hold beside their weights and tokenizers."""
CONFIGURED = {"dev": ("dev",), "krea": ("dev",), "kontext": ("kontext", "dev"), "schnell": ("schnell", "dev")}
"""The folders there that describe a model; the first one that has a part describes it."""

PART_OF = {"transformer": "transformer", "ae": "vae", "clip_l": "text_encoder", "t5xxl": "text_encoder_2"}
"""The part of a pipeline that a single file stands in for, by its name in a recipe."""

TOKENIZERS = {"tokenizer": "openai/clip-vit-large-patch14", "tokenizer_2": "google/t5-v1_1-xxl"}
"""Where FLUX.1's tokenizers come from when only single files are there: the open models that they were made for."""
TOKENIZER_FILES = ["tokenizer*.json", "vocab.json", "merges.txt", "spiece.model", "special_tokens_map.json"]


@dataclass(frozen=True)
class Source:
    """Where the parts of a pipeline lie.

    `folder` holds model_index.json and a folder for each part; `folders` names those that lie elsewhere, and `files`
    the single files that hold a part's weights.
    """

    folder: Path
    folders: Mapping[str, Path] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)

    def part(self, name: str) -> Path:
        """The folder of a part: its configuration, and its weights unless a file holds them."""
        return self.folders.get(name, self.folder / name)

    def depends_on(self, *parts: str) -> tuple[Path, ...]:
        """Every folder and file that these parts are made of."""
        return tuple(path for name in parts for path in (self.part(name), self.files.get(name)) if path)

    @property
    def pipeline(self) -> str:
        """The class of the pipeline."""
        index = json.loads((self.folder / "model_index.json").read_text(encoding="utf-8"))
        return str(index.get("_class_name", ""))


def find_source(base: str, location: str, files: Mapping[str, str]) -> Source:
    """Where a base model lies; what is on the Hub is downloaded once, less the weights that single files hold.

    Args:
        base: as the recipe names it.
        location: the folder or Hub id behind it.
        files: single files, by their names in `PART_OF`; empty ones are passed over.

    Raises:
        ModelError: something is absent, incomplete, gated, or cannot be downloaded.
    """
    given = {PART_OF[name]: _single_file(name, path) for name, path in files.items() if path}
    if not given:
        return Source(local_folder(location))
    if Path(location).is_dir():
        return Source(_complete(Path(location).resolve(), f"model folder {base}", given), files=given)
    short = next((name for name in CONFIGURED if PUBLISHED[name] == location), "")
    if short and given.keys() == set(PART_OF.values()):
        return _from_files(CONFIGURED[short], given)
    return Source(local_folder(location, given), files=given)


def _from_files(described: Sequence[str], files: Mapping[str, Path]) -> Source:
    """A model whose weights are all in single files: only the tokenizers may still come from the Hub."""

    def whole(folder: Path) -> bool:
        return (folder / "tokenizer_config.json").is_file()

    folders = {part: fetch(repo, TOKENIZER_FILES, whole) for part, repo in TOKENIZERS.items()}
    for name in reversed(described):
        folders |= {path.name: path for path in (CONFIGS / name).iterdir() if path.is_dir()}
    return Source(CONFIGS / described[0], folders, files)


def local_folder(source: str, without: Mapping[str, Path] | None = None) -> Path:
    """The folder of a pipeline in the diffusers layout; a Hub id is downloaded once.

    Everything is loaded from this folder afterwards, so that a lost network can neither stall nor change a run.

    Args:
        source: a folder or a Hub id.
        without: parts whose weights are not needed.

    Raises:
        ModelError: it is absent, incomplete, gated, or cannot be downloaded.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _complete(path.resolve(), f"model folder {source}", without)
    if not HUB_ID.fullmatch(source):
        raise ModelError(
            f"there is no model folder {source}",
            f"Give one of {', '.join(PUBLISHED)}, a folder in the diffusers layout (with model_index.json), "
            "or a Hub id.",
        )
    weights = ["*/*.safetensors"]
    if without:
        small = fetch(source, SMALL_FILES, lambda folder: (folder / "model_index.json").is_file())
        weights = [f"{part}/*.safetensors" for part in _parts(small) if part not in without]
    folder = fetch(source, [*SMALL_FILES, *weights], lambda folder: not missing_files(folder, without))
    return _complete(folder, f"the local copy of {source}", without)


def unusable(files: Mapping[str, str]) -> dict[str, ModelError]:
    """What is wrong with single files, by their names in `PART_OF`."""
    wrong = {}
    for name, path in files.items():
        try:
            if path:
                _single_file(name, path)
        except ModelError as error:
            wrong[name] = error
    return wrong


def _single_file(name: str, given: str) -> Path:
    path = Path(given).expanduser()
    if not path.is_file():
        raise ModelError(f"there is no file {given} (model.files.{name})", "Give the path of a .safetensors file.")
    try:
        with safe_open(path, framework="numpy") as opened:
            scaled = [key for key in opened.keys() if key.endswith(("scale_weight", "weight_scale", "scaled_fp8"))]  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{given} (model.files.{name}) is no readable .safetensors file: {error}", "Download it again."
        ) from None
    if scaled:
        raise ModelError(
            f"{given} (model.files.{name}) is quantised with scales of its own ({scaled[0]})",
            "Give the bf16 or fp16 file, or a plain fp8 one; training quantises by itself (train.quantize).",
        )
    return path.resolve()


def _complete(folder: Path, what: str, without: Mapping[str, Path] | None = None) -> Path:
    missing = missing_files(folder, without or {})
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ModelError(
            f"{what} is incomplete: {shown} missing",
            "Download the model again; a diffusers folder holds model_index.json and a folder for each part.",
        )
    return folder


def _parts(folder: Path) -> list[str]:
    """The parts that model_index.json names."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return [part for part, kind in index.items() if isinstance(kind, list) and kind[0] is not None]


def missing_files(folder: Path, without: Mapping[str, Path] | None = None) -> list[str]:
    """Files that the parts named in model_index.json need and do not have; no weights for those in `without`."""
    try:
        parts = _parts(folder)
    except (OSError, ValueError):
        return ["model_index.json"]
    missing = []
    for part in parts:
        if part.startswith("tokenizer"):
            wanted = ["tokenizer_config.json"]
        elif part == "scheduler":
            wanted = ["scheduler_config.json"]
        else:
            wanted = ["config.json", *([] if part in (without or {}) else _weights(folder / part))]
        missing += [f"{part}/{name}" for name in wanted if not (folder / part / name).is_file()]
    return missing


def _weights(part: Path) -> list[str]:
    """The weight files of a part: the shards of its index, or any safetensors file."""
    for index in part.glob("*.safetensors.index.json"):
        shards: dict[str, str] = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {})
        return sorted(set(shards.values()))
    return [next((path.name for path in part.glob("*.safetensors")), "*.safetensors")]
