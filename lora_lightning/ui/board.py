"""TensorBoard inside the dashboard's own server: one port, one origin, started when it is first looked at."""

import threading
from pathlib import Path
from typing import Any

from a2wsgi import WSGIMiddleware
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

PREFIX = "/tb"
RELOAD_SECONDS = 3


class Board:
    """TensorBoard over every run of a workspace, as an ASGI app.

    It is built in the first request (0.4 s and 52 MB; it loads neither torch nor tensorflow) and reads the event
    files in a thread that ends with the dashboard.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._app: WSGIMiddleware | None = None
        self._building = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        board = await run_in_threadpool(self._built)
        await board({**scope, "root_path": ""}, receive, send)  # it takes the prefix off itself, and writes it in links

    def _built(self) -> WSGIMiddleware:
        with self._building:
            if self._app is None:
                self._app = WSGIMiddleware(_wsgi(self.runs))
            return self._app


class _Handed:
    """Stands where TensorBoard would make its server, and keeps the application that it is handed."""

    application: Any = None

    def __call__(self, application: Any, flags: Any) -> "_Handed":
        self.application = application
        return self

    def serve_forever(self) -> None:
        """Serve nothing: requests come through ours."""

    def get_url(self) -> str:
        """Where it is reached."""
        return f"{PREFIX}/"


def _wsgi(runs: Path) -> Any:
    from tensorboard import default, program  # type: ignore[attr-defined]

    runs.mkdir(parents=True, exist_ok=True)
    handed = _Handed()
    board = program.TensorBoard(default.get_plugins(), server_class=handed)
    options = {"logdir": runs, "path_prefix": PREFIX, "load_fast": "false", "reload_interval": RELOAD_SECONDS}
    board.configure(argv=["tensorboard", *(f"--{name}={value}" for name, value in options.items())])
    board.launch()
    return handed.application
