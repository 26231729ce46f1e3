"""Any server that speaks OpenAI's chat protocol: vLLM, Ollama, LM Studio, on this machine or elsewhere.

Pictures travel as JPEG data URLs, many at once, so that the server can batch them. The key is read from
$CAPTION_API_KEY and goes nowhere but into the request's header, which is sent over https, or to this machine or a
private network.
"""

import base64
import io
import ipaddress
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from lora_lightning.caption.base import Answer, Request, Told
from lora_lightning.errors import InputError, JobError, ModelError

MODEL_TYPES: tuple[str, ...] = ()
KEY_VARIABLE = "CAPTION_API_KEY"

LONGEST_SIDE = 1536
"""Pixels: no captioner looks at more, and larger pictures take longer to send."""

ANSWER_SECONDS = 300.0
ATTEMPTS = 5
PAUSE_SECONDS = 1.0
"""Before the second attempt; twice as long before each further one, or as long as the server asks for."""

LONGEST_PAUSE_SECONDS = 60.0
PASSING = (408, 409, 425, 429, 500, 502, 503, 504)
"""Answers that another attempt may change."""

REFUSING = (400, 413, 422)
"""Answers that are about this picture: the others go on."""


def connect(endpoint: str, model: str) -> "OpenAiApi":
    """A captioner behind an address.

    Raises:
        InputError: there is a key, and the address would carry it in the clear.
        ModelError: nobody answers there, the key is wrong, or the server does not offer the model.
    """
    key = os.environ.get(KEY_VARIABLE, "")
    if key and not _confidential(endpoint):
        raise InputError(
            f"{endpoint} would carry the key of ${KEY_VARIABLE} in the clear",
            f"Give an https address, or unset ${KEY_VARIABLE}.",
        )
    made = OpenAiApi(endpoint, model, key)
    offered = made.models()
    if offered and model not in offered:
        raise ModelError(
            f"{endpoint} offers no model {model!r}", f"Set caption.captioner to one of: {', '.join(sorted(offered))}."
        )
    return made


def _confidential(endpoint: str) -> bool:
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    if parts.scheme == "https" or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key along to somewhere else."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Never."""


class _Refused(Exception):
    """The server takes requests, but not this one."""


class OpenAiApi:
    """A server's chat endpoint.

    Args:
        endpoint: up to and with /v1.
        model: its name there.
        key: may be empty.
    """

    def __init__(self, endpoint: str, model: str, key: str) -> None:
        self.endpoint, self.model = endpoint, model
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._opener = urllib.request.build_opener(_NoRedirect)

    def models(self) -> set[str]:
        """The models that the server offers; empty where it does not say."""
        try:
            listed = self._send("/models", None)
        except ModelError as error:
            if "answered 404" in error.message or "answered 405" in error.message:
                return set()
            raise
        data = listed.get("data")
        return {str(each["id"]) for each in data if "id" in each} if isinstance(data, list) else set()

    def stream(self, size: int) -> "Calls":
        """Describe `size` pictures at once: as soon as one is answered, the next is sent."""
        return Calls(self.describe, size)

    def describe(self, request: Request) -> Answer:
        """The answer to one request.

        Raises:
            ModelError: the server refuses.
            JobError: it does not answer, or not with a text.
        """
        parts = [
            {"type": "image_url", "image_url": {"url": data_url(request.image)}},
            {"type": "text", "text": request.prompt},
        ]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": parts}],
            "max_tokens": request.sampling.max_tokens,
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
            "seed": request.seed % 2**31,
        }
        try:
            answer = self._send("/chat/completions", body)
        except _Refused as refused:
            return Answer("", refusal=str(refused))
        try:
            choice = answer["choices"][0]
            text, reason = choice["message"]["content"] or "", choice.get("finish_reason")
        except (KeyError, IndexError, TypeError):
            raise JobError(
                f"{self.endpoint} answered without a text: {str(answer)[:200]}", "Is it a chat endpoint?"
            ) from None
        return Answer(str(text), "cut" if reason == "length" else "done")

    def _send(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        """Post, or get where there is no body; what may pass is tried again.

        Raises:
            ModelError: the server refuses.
            JobError: it still does not answer at the last attempt.
        """
        data = json.dumps(body).encode() if body is not None else None
        for attempt in range(1, ATTEMPTS + 1):
            request = urllib.request.Request(self.endpoint + path, data, self._headers)
            wait_seconds = min(PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS)
            try:
                with self._opener.open(request, timeout=ANSWER_SECONDS) as response:
                    answer = json.load(response)
                return answer if isinstance(answer, dict) else {}
            except urllib.error.HTTPError as error:
                why = _why(error)
                if error.code in REFUSING:
                    raise _Refused(f"the server answered {error.code}{why}") from None
                if error.code not in PASSING:
                    raise ModelError(f"{self.endpoint}{path} answered {error.code}{why}", _hint(error.code)) from None
                what = f"answered {error.code}{why}"
                wait_seconds = _asked_seconds(error, wait_seconds)
            except (OSError, HTTPException, json.JSONDecodeError) as error:
                what = f"cannot be reached ({getattr(error, 'reason', None) or type(error).__name__})"
            if attempt < ATTEMPTS:
                time.sleep(wait_seconds)
        raise JobError(f"{self.endpoint} {what}, {ATTEMPTS} times", "Is the server running? Then run the job again.")


def _why(error: urllib.error.HTTPError) -> str:
    """What the server itself says about a refusal."""
    try:
        body = json.loads(error.read(4096))
        told = body.get("error", body)
        message = told.get("message") or told.get("detail") if isinstance(told, dict) else told
    except (OSError, ValueError, AttributeError):
        return ""
    return f": {str(message)[:300]}" if message else ""


def _hint(code: int) -> str:
    if code in (401, 403):
        return f"Put the server's key into ${KEY_VARIABLE}."
    if 300 <= code < 400:
        return "Give the address that it redirects to."
    return "Is caption.endpoint right, up to and with /v1, and does caption.captioner see pictures?"


def _asked_seconds(error: urllib.error.HTTPError, otherwise: float) -> float:
    """How long the server asks to wait."""
    try:
        return min(max(0.0, float(error.headers.get("Retry-After", ""))), LONGEST_PAUSE_SECONDS)
    except ValueError:
        return otherwise


class Calls:
    """Requests on their way, each in a thread of its own."""

    def __init__(self, describe: Callable[[Request], Answer], size: int) -> None:
        self._describe, self._size = describe, size
        self._pool = ThreadPoolExecutor(size)
        self._calls: dict[Future[Answer], int] = {}

    @property
    def free(self) -> int:
        """How many more requests it takes now."""
        return self._size - len(self._calls)

    @property
    def keys(self) -> list[int]:
        """The requests that it has not answered."""
        return list(self._calls.values())

    def put(self, key: int, request: Request) -> None:
        """Send a request."""
        self._calls[self._pool.submit(self._describe, request)] = key

    def step(self) -> list[Told]:
        """Wait until something is answered."""
        done, _ = wait(self._calls, return_when=FIRST_COMPLETED)
        return [Told(self._calls.pop(call), call.result()) for call in done]

    def close(self) -> None:
        """Send no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def data_url(image: Image.Image) -> str:
    """A picture as text: JPEG, its longest side at most 1536 pixels."""
    small = image.copy()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
