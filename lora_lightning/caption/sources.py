"""From the name of a captioner to a folder on this machine, or an error that says what to do."""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]  # of httpx or httpx2

from lora_lightning.caption.config import PUBLISHED
from lora_lightning.errors import ModelError
from lora_lightning.models.config import EMBEDDED

FILES = ["*.json", "*.jinja", "*.model", "*.txt", "*.safetensors"]
REACH_SECONDS = 10.0
HINT = "Give joycaption, joycaption-alpha-two, a folder with config.json, or a Hub id such as owner/name."


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
    if source.folder:
        return source.folder
    repo = source.location
    try:
        return Path(snapshot_download(repo, allow_patterns=FILES, local_files_only=True))
    except (OSError, HFValidationError):
        pass
    if constants.HF_HUB_OFFLINE:
        raise ModelError(
            f"captioner {repo} is not on this machine, and HF_HUB_OFFLINE forbids to download it",
            f"Unset HF_HUB_OFFLINE, or run `hf download {repo}` and copy its folder here.",
        )
    try:
        HfApi().model_info(repo, timeout=REACH_SECONDS)
        return Path(snapshot_download(repo, allow_patterns=FILES))
    except GatedRepoError:
        raise ModelError(
            f"captioner {repo} is gated", f"Accept its licence at https://huggingface.co/{repo}, then `hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(f"there is no model {repo} on the Hugging Face Hub, or it is private", HINT) from None
    except HFValidationError:
        raise ModelError(f"there is no captioner {repo!r}", HINT) from None
    except HfHubHTTPError as error:
        raise ModelError(f"captioner {repo} could not be downloaded: {_short(error)}", "Try again later.") from None
    except (TransportError, OSError) as error:
        raise ModelError(
            f"captioner {repo} is not on this machine, and the Hub cannot be reached ({type(error).__name__})",
            f"Connect to the network, or run `hf download {repo}` elsewhere and give its folder.",
        ) from None


def _short(error: HfHubHTTPError) -> str:
    return f"the Hub answered {error.response.status_code}"
