"""Uploads of any number of files: the browser sends one after the other, and each goes straight to the disk.

Streamlit's own uploader keeps files in memory and fails beyond 980 of them (streamlit/streamlit#8534). Here a
component (uploads.js) sends each file by a PUT of its own to `/uploads/BATCH/NAME`; what arrived lies in
`WORKSPACE/.uploads/BATCH` until it is imported. A page of another site cannot do that: before a PUT with a header of
ours a browser asks the server, which allows no other origin.
"""

import re
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import streamlit as st
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from lora_lightning.datasets.entries import MAX_FILE_BYTES
from lora_lightning.workspace import Workspace

HEADER = "X-LoRA-Lightning"
STALE_SECONDS = 24 * 3600
"""After that long an upload that nobody imported goes away."""
LONGEST_NAME_BYTES = 240
_BATCH = re.compile(r"[0-9a-f]{32}")
_STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True)
class Arrived:
    """What a browser has sent: the folder that it lies in, and how many files."""

    folder: Path
    files: int


def widget(workspace: Workspace) -> Arrived | None:
    """The place to drop files; None until all that were given have arrived."""
    html, css, js = ((_STATIC / f"uploads.{end}").read_text(encoding="utf-8") for end in ("html", "css", "js"))
    component = st.components.v2.component("ll_uploads", html=html, css=css, js=js)
    batch = st.session_state.setdefault("uploads.batch", uuid4().hex)
    done = component(
        key=f"uploads.{batch}",
        data={"batch": batch, "header": HEADER},
        default={"done": 0},
        on_done_change=lambda: None,
    ).done
    folder = _root(workspace) / batch
    return Arrived(folder, int(done)) if done and folder.is_dir() else None


def finish(workspace: Workspace) -> None:
    """Take the session's upload away, and what others left a day ago; the next one is a new batch."""
    batch = st.session_state.pop("uploads.batch", "")
    root = _root(workspace)
    for folder in list(root.iterdir()) if root.is_dir() else ():
        if folder.name == batch or time.time() - folder.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def receiver(workspace: Workspace) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint that takes one file."""

    async def receive(request: Request) -> Response:
        batch, names = request.path_params["batch"], request.path_params["name"].split("/")
        if HEADER not in request.headers or not _BATCH.fullmatch(batch):
            return PlainTextResponse("Upload from the dashboard's own page.", status_code=403)
        if any(name in ("", ".", "..") or "\0" in name or len(name.encode()) > LONGEST_NAME_BYTES for name in names):
            return PlainTextResponse("This name cannot be used.", status_code=400)
        return await _store(request, _free(_root(workspace) / batch / Path(*names)))

    return receive


async def _store(request: Request, target: Path) -> Response:
    """Stream the body to the disk; of one that stops half way nothing stays."""
    part = target.with_name(f".{target.name}.part")
    total = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            async for piece in request.stream():
                total += len(piece)
                if total > MAX_FILE_BYTES:
                    return PlainTextResponse(f"larger than {MAX_FILE_BYTES // 2**20} MiB", status_code=413)
                file.write(piece)
        part.replace(target)
    except ClientDisconnect:
        return PlainTextResponse("cut off", status_code=400)
    except OSError as error:
        return PlainTextResponse(error.strerror or str(error), status_code=507)
    finally:
        part.unlink(missing_ok=True)
    return PlainTextResponse("", status_code=201)


def _free(path: Path) -> Path:
    """The path, or the first numbered one that is free: two folders may hold an IMG_0001.jpg each."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return found


def _root(workspace: Workspace) -> Path:
    return workspace.home / ".uploads"
