"""Models from the Hugging Face Hub: the local cache first, then one download; importing this needs no torch."""

import errno
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]  # of httpx or httpx2

from lora_lightning.errors import ModelError

REACH_SECONDS = 10.0
"""How long the Hub may take to answer before it counts as unreachable; a download may take as long as it likes."""


def fetch(repo: str, patterns: list[str], whole: Callable[[Path], bool] = Path.is_dir) -> Path:
    """The local folder of a Hub repository's files; once downloaded, no network is asked again.

    Args:
        repo: its id.
        patterns: of the files that are wanted.
        whole: whether a local folder holds them all; if not, what is missing is downloaded.

    Raises:
        ModelError: it is absent, private, gated, or the Hub does not answer within seconds.
    """
    try:
        folder = Path(snapshot_download(repo, allow_patterns=patterns, local_files_only=True))
        if whole(folder) or constants.HF_HUB_OFFLINE:
            return folder
    except (OSError, HFValidationError):
        pass
    if constants.HF_HUB_OFFLINE:
        raise ModelError(
            f"{repo} is neither a folder here nor in the local Hub cache, and HF_HUB_OFFLINE forbids to download it",
            f"Unset HF_HUB_OFFLINE, or run `hf download {repo}` elsewhere and give its folder.",
        )
    try:
        HfApi().model_info(repo, timeout=REACH_SECONDS)
        return Path(snapshot_download(repo, allow_patterns=patterns))
    except GatedRepoError:
        raise ModelError(
            f"{repo} is gated: its licence must be accepted once",
            f"Accept it at https://huggingface.co/{repo}, then run `hf auth login` with a token of that account.",
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ModelError(
            f"there is no model {repo} on the Hugging Face Hub, or it is private",
            "Check the spelling; for a private model run `hf auth login` first.",
        ) from None
    except HfHubHTTPError as error:
        raise ModelError(
            f"{repo} could not be downloaded: the Hub answered {error.response.status_code}", "Try again later."
        ) from None
    except (TransportError, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        raise ModelError(
            f"{repo} is not on this machine, and the Hub cannot be reached ({type(error).__name__})",
            f"Connect to the network, or run `hf download {repo}` elsewhere and give its folder.",
        ) from None
