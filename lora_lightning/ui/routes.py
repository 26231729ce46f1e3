"""What the dashboard's server answers besides its pages: pictures and files of the workspace, and TensorBoard."""

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path

from PIL import Image
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from lora_lightning.datasets.images import read, thumbnail
from lora_lightning.errors import LoraLightningError
from lora_lightning.runs.files import write_atomic
from lora_lightning.ui import uploads
from lora_lightning.ui.board import PREFIX, Board
from lora_lightning.workspace import Workspace

SHOWN = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif"}
"""Pictures, shown in the page, by their file name's end."""

TEXT = {".txt": "text/plain", ".yaml": "text/plain", ".json": "application/json", ".md": "text/plain"}
"""Text, shown as text whatever it holds."""

SAVED = {".zip": "application/zip", ".safetensors": "application/octet-stream"}
"""Files to save."""

SERVED = SHOWN | TEXT | SAVED
PICTURES = (*SHOWN, ".bmp", ".tif", ".tiff", ".avif", ".heic")

SMALL_SIDE, LARGE_SIDE = 384, 1280
"""Longer side of a picture's copies, in pixels."""

HEADERS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
CHECKED = {"Cache-Control": "private, no-cache"}

Endpoint = Callable[[Request], Response]


def routes(workspace: Workspace) -> list[BaseRoute]:
    """The dashboard's own routes."""
    return [
        Route("/files/{path:path}", _files(workspace)),
        Route("/thumbs/{dataset}/{file}", _thumbs(workspace)),
        Route("/small/{path:path}", _small(workspace)),
        Route("/uploads/{batch}/{name:path}", uploads.receiver(workspace), methods=["PUT"]),
        Mount(PREFIX, app=Board(workspace.runs)),
        Route("/font-roboto/{file}", _font),
    ]


def allowed(home: Path, relative: str, kinds: Collection[str]) -> Path | None:
    """The file behind a path of a URL, if it may be served: known kind, not hidden, and truly inside `home`."""
    if any(part.startswith(".") for part in Path(relative).parts) or "\0" in relative:
        return None
    path = home / relative
    inside = path.resolve().is_relative_to(home.resolve())
    return path if inside and path.is_file() and path.suffix.lower() in kinds else None


def _font(request: Request) -> Response:
    """TensorBoard's style sheets ask for its fonts at the root, whatever its prefix."""
    return RedirectResponse(f"{PREFIX}/font-roboto/{request.path_params['file']}")


def _files(workspace: Workspace) -> Endpoint:
    def files(request: Request) -> Response:
        path = allowed(workspace.home, request.path_params["path"], SERVED)
        if path is None:
            return PlainTextResponse("There is no such file.", status_code=404)
        suffix = path.suffix.lower()
        caching = FOREVER if "v" in request.query_params else CHECKED
        return FileResponse(
            path,
            media_type=SERVED[suffix],
            filename=path.name,
            content_disposition_type="attachment" if suffix in SAVED or "save" in request.query_params else "inline",
            headers=HEADERS | caching,
        )

    return files


def _thumbs(workspace: Workspace) -> Endpoint:
    def thumbs(request: Request) -> Response:
        dataset, file = request.path_params["dataset"], request.path_params["file"]
        if allowed(workspace.datasets, f"{dataset}/images/{file}", PICTURES) is None:
            return PlainTextResponse("There is no such picture.", status_code=404)
        try:
            side = LARGE_SIDE if "large" in request.query_params else SMALL_SIDE
            small = thumbnail(workspace.dataset(dataset), file, side)
        except (LoraLightningError, OSError) as error:
            return PlainTextResponse(f"This picture cannot be shown: {error}", status_code=500)
        return FileResponse(small, media_type="image/webp", headers=HEADERS | FOREVER)

    return thumbs


def _small(workspace: Workspace) -> Endpoint:
    """Small copies of pictures that runs drew, made on first sight and kept in the cache."""

    def small(request: Request) -> Response:
        path = allowed(workspace.home, request.path_params["path"], SHOWN)
        if path is None:
            return PlainTextResponse("There is no such picture.", status_code=404)
        stat = path.stat()
        told = f"{path.relative_to(workspace.home)} {stat.st_mtime_ns} {stat.st_size}"
        target = workspace.cache / "small" / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.webp"
        if not target.is_file():
            try:
                image = read(path, at_least=SMALL_SIDE).image
            except (LoraLightningError, OSError) as error:
                return PlainTextResponse(f"This picture cannot be shown: {error}", status_code=500)
            image.thumbnail((SMALL_SIDE, SMALL_SIDE), Image.Resampling.LANCZOS)
            write_atomic(target, lambda file: image.save(file, "WEBP", quality=82))
        return FileResponse(target, media_type="image/webp", headers=HEADERS | FOREVER)

    return small
