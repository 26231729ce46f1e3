"""`publish`: pushes output/NAME, the LoRA with its card, samples and recipe, to the Hugging Face Hub."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lora_lightning import __version__
from lora_lightning.errors import PublishError
from lora_lightning.publish.card import NO_REPO
from lora_lightning.publish.hub import Hub
from lora_lightning.runs.reporter import Outcome, Reporter, absolute
from lora_lightning.workspace import Workspace

if TYPE_CHECKING:
    from lora_lightning.recipe import Recipe

TOKEN = re.compile(r"hf_[A-Za-z0-9]{20,}")
OWN_WORDS = ("prompt", "prompts", "trigger")


def run(recipe: "Recipe", workspace: Workspace, reporter: Reporter) -> Outcome:
    """Push a finished LoRA, then look whether it arrived.

    Raises:
        PublishError: there is no such LoRA, no repository, no token, or no permission.
        JobError: the Hub cannot be reached, or something did not arrive whole.
    """
    settings = recipe.publish
    if not settings.repo:
        raise PublishError("the recipe names no repository", "Add publish.repo=USER/NAME.")
    sources = collect(workspace.lora(recipe.name))
    files = {name: cleaned(name, path, settings.repo) for name, path in sources.items()}
    reporter.phase("logging in")
    hub = Hub()
    hub.prepare(settings.repo, private=settings.private)
    reporter.check_stop()
    reporter.phase("uploading", total=len(files))
    pushed = hub.push(settings.repo, files, f"{recipe.name}, by LoRA Lightning {__version__}")
    reporter.advance(len(files))
    reporter.phase("checking what arrived")
    hub.check(settings.repo, files)
    return Outcome(
        {"lora": str(workspace.lora(recipe.name)), "files": absolute(*sources.values())},
        {"url": pushed.url, "private": pushed.private, "commit": pushed.commit, "user": hub.user},
    )


def collect(lora: Path) -> dict[str, Path]:
    """The files of a finished LoRA by their names in the repository: these and nothing else that lies there.

    Raises:
        PublishError: a part is missing.
    """
    folder = lora.parent
    needed = [lora, folder / "README.md", folder / "recipe.yaml"]
    for path in needed:
        if not path.is_file():
            raise PublishError(
                f"{path} is not there", "Train this LoRA to its end first; `runs` shows where it stands."
            )
    samples = sorted((folder / "samples").glob("*.png"))
    return {str(path.relative_to(folder)): path for path in [*needed, *samples]}


def cleaned(name: str, path: Path, repo: str) -> Path | bytes:
    """A file as it goes out: the card names its repository, and the recipe no folder of this machine.

    Raises:
        PublishError: a text holds what looks like a token.
    """
    if not name.endswith((".md", ".yaml")):
        return path
    text = path.read_text(encoding="utf-8")
    if found := TOKEN.search(text):
        raise PublishError(
            f"{path} holds what looks like a Hugging Face token ({found[0][:6]}...)",
            "Take it out of the file, and revoke it at https://huggingface.co/settings/tokens.",
        )
    if name == "README.md":
        return text.replace(f'"{NO_REPO}{path.parent.name}"', f'"{repo}"').encode()
    return yaml.safe_dump(_without_folders(yaml.safe_load(text)), sort_keys=False, allow_unicode=True).encode()


def _without_folders(value: Any, key: str = "") -> Any:
    """The same values, absolute paths cut to their last part; what people wrote in their own words stays."""
    if isinstance(value, dict):
        return {name: _without_folders(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item, key) for item in value]
    is_path = isinstance(value, str) and value.startswith(("/", "~/")) and key not in OWN_WORDS
    return Path(value).name if is_path else value
