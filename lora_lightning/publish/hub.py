"""Pushing a folder to the Hugging Face Hub as one commit, and looking whether it arrived."""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]  # of httpx or httpx2
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

from lora_lightning.errors import JobError, LoraLightningError, PublishError

ANSWER_SECONDS = 120.0
AGAIN = "Run the same command again: what was uploaded already is not sent twice."


@dataclass(frozen=True)
class Pushed:
    """A repository as it is after a push."""

    url: str
    private: bool
    commit: str


class Hub:
    """The Hub as one user sees it. The token comes from `hf auth login` or HF_TOKEN and goes nowhere else.

    Args:
        kind: of the repositories, "model" or "dataset".

    Raises:
        PublishError: there is no token, or the Hub does not accept it.
        JobError: the Hub cannot be reached.
    """

    def __init__(self, kind: str = "model") -> None:
        self.kind = kind
        token = get_token()
        if not token:
            raise PublishError(
                "nobody is logged in to the Hugging Face Hub on this machine",
                "Run `hf auth login` with a token that may write (https://huggingface.co/settings/tokens).",
            )
        for library in ("httpx", "httpx2"):  # they log every address, signed upload addresses too
            logging.getLogger(library).setLevel(logging.WARNING)
        get_session().timeout = ANSWER_SECONDS  # its own default is to wait for ever
        self._api = HfApi(token=token)
        with _explained("log in"):
            self.user = str(self._api.whoami()["name"])

    def prepare(self, repo: str, *, private: bool) -> None:
        """Make the repository, unless it is there already and as visible as asked.

        Raises:
            PublishError: it is there with another visibility, or the token may not write to it.
        """
        with _explained(f"create {repo}", self.user):
            try:
                found = self._api.repo_info(repo, repo_type=self.kind)
            except RepositoryNotFoundError:
                self._api.create_repo(repo, private=private, repo_type=self.kind)
                return
        if bool(found.private) is not private:
            raise PublishError(
                f"{repo} exists and is {_visibility(bool(found.private))}, the recipe says {_visibility(private)}",
                f"Set publish.private={str(not private).lower()}, choose another publish.repo, or change the "
                f"repository's visibility at {self._api.endpoint}/{repo}/settings.",
            )

    def push(self, repo: str, files: Mapping[str, Path | bytes], message: str) -> Pushed:
        """Upload files (name in the repository -> file or content) as one commit: all of them or none.

        Only what is named is sent. `HfApi.upload_folder` would split the files into several commits.
        """
        operations = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in files.items()
        ]
        with _explained(f"upload to {repo}", self.user):
            commit = self._api.create_commit(repo, operations, commit_message=message, repo_type=self.kind)
            found = self._api.repo_info(repo, repo_type=self.kind)
            folder = "datasets/" if self.kind == "dataset" else ""
            return Pushed(f"{self._api.endpoint}/{folder}{repo}", bool(found.private), commit.oid)

    def check(self, repo: str, files: Mapping[str, Path | bytes]) -> None:
        """Compare what the Hub lists with what was sent: sizes, and the SHA-256 of those in large file storage.

        Raises:
            JobError: something did not arrive whole.
        """
        with _explained(f"check {repo}", self.user):
            listed = {
                found.path: found
                for found in self._api.get_paths_info(repo, list(files), repo_type=self.kind)
                if isinstance(found, RepoFile)
            }
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            found = listed.get(name)
            whole = found is not None and found.size == len(data)
            if whole and found is not None and found.lfs is not None:
                whole = found.lfs.sha256 == hashlib.sha256(data).hexdigest()
            if not whole:
                raise JobError(f"{name} did not arrive whole in {repo}", AGAIN)


@contextmanager
def _explained(what: str, user: str = "") -> Iterator[None]:
    """Turn what huggingface_hub raises into errors that say what to do."""
    try:
        yield
    except LoraLightningError:
        raise
    except Exception as error:
        raise _explanation(error, what, user) from error


def _explanation(error: BaseException, what: str, user: str) -> LoraLightningError:
    if isinstance(error, RuntimeError) and error.__cause__:  # what went wrong in an upload thread
        return _explanation(error.__cause__, what, user)
    if isinstance(error, OfflineModeIsEnabled):
        return PublishError(f"cannot {what}: HF_HUB_OFFLINE is set", "Unset HF_HUB_OFFLINE.")
    if isinstance(error, HfHubHTTPError):
        return _refusal(error, what, user)
    if isinstance(error, TransportError | OSError):
        return JobError(f"cannot {what}: the Hub cannot be reached ({type(error).__name__})", AGAIN)
    if isinstance(error, ValueError):
        return PublishError(f"cannot {what}: {_line(str(error))}", "Correct what it names.")
    return JobError(f"cannot {what}: {type(error).__name__}: {error}", "The log holds the details.")


def _refusal(error: HfHubHTTPError, what: str, user: str) -> LoraLightningError:
    status = error.response.status_code
    if status == 401:
        return PublishError(f"cannot {what}: the Hub does not accept the token", "Run `hf auth login` with a new one.")
    if status == 403:
        who = f"the token of {user}" if user else "the token"
        return PublishError(
            f"cannot {what}: {who} may not write there",
            "Use a token that may write (https://huggingface.co/settings/tokens), and a publish.repo of yours.",
        )
    if status >= 500 or status == 429:
        return JobError(f"cannot {what}: the Hub answered {status}", AGAIN)
    said = _line(error.server_message or str(error))
    return PublishError(f"cannot {what}: the Hub answered {status}: {said}", "Correct what it names.")


def _line(text: str) -> str:
    return " ".join(text.split())[:300]


def _visibility(private: bool) -> str:
    return "private" if private else "public"
