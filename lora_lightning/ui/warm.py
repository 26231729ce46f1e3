"""What the server does once, beside its first visitor: load what the pages need, and count it as there to stay."""

import gc
import importlib
import pkgutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

APART = ("navigation", "warm")
"""A script that Streamlit runs, and this."""


@asynccontextmanager
async def warmed(_app: object) -> AsyncIterator[None]:
    """The server's life: it answers at once, and loads meanwhile."""
    threading.Thread(target=load, name="warm", daemon=True).start()
    yield


def load() -> None:
    """Import what the pages import; from here on the garbage collector passes it by.

    Walking over 160,000 objects of modules took 80 ms, whenever somebody clicked, and each second that somebody watched
    a run.
    """
    names = {module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])} - set(APART)
    for name in sorted(names):
        importlib.import_module(f"{__package__}.{name}")
    importlib.import_module("lora_lightning.check")
    gc.collect()
    gc.freeze()
