"""Pictures by their URLs: the browser fetches what it shows, small, and nothing is decoded again for a page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import streamlit as st
from PIL import Image

from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.workspace import Workspace

Thing = TypeVar("Thing")
PER_PAGE = 60
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SHOWN = (*SUFFIXES, ".gif")
"""Pictures that every browser shows as they are."""


@dataclass(frozen=True)
class Tile:
    """One picture of a gallery: the small one shown, the one it opens, the words below it, where to draw it again."""

    thumb: str
    full: str
    title: str
    text: str = ""
    send: str = ""


def url(workspace: Workspace, path: Path, *, save: bool = False) -> str:
    """Where the dashboard serves a file of the workspace; a changed file has another URL."""
    version = path.stat().st_mtime_ns if path.is_file() else 0
    relative = quote(path.relative_to(workspace.home).as_posix())
    return f"/files/{relative}?v={version}" + ("&save" if save else "")


def small(workspace: Workspace, path: Path) -> str:
    """Where the dashboard serves a small copy of a picture that a run drew."""
    return url(workspace, path).replace("/files/", "/small/", 1)


def redraw(workspace: Workspace, path: Path) -> str:
    """Where the Generate page opens with what a picture was drawn from."""
    return f"/generate?from={quote(path.relative_to(workspace.home).as_posix())}"


def of_picture(workspace: Workspace, dataset: Dataset, picture: Picture) -> Tile:
    """The tile of a dataset's picture; one of a kind that browsers do not show opens as a large copy."""
    thumb = f"/thumbs/{quote(dataset.name)}/{quote(picture.file)}"
    path = dataset.path(picture)
    return Tile(
        thumb=thumb,
        full=url(workspace, path) if path.suffix in SHOWN else f"{thumb}?large",
        title=picture.name,
        text=picture.caption or "no caption",
    )


def of_file(workspace: Workspace, path: Path, text: str = "") -> Tile:
    """The tile of a picture that a run drew."""
    told = facts(path)
    again = redraw(workspace, path) if "prompt" in told and "strength" not in told else ""
    return Tile(small(workspace, path), url(workspace, path), path.stem, text or described(told), again)


def show_files(workspace: Workspace, paths: Sequence[Path], key: str, *, cell: int = 150) -> None:
    """Draw a page of picture files of the workspace."""
    show(paths, lambda path: of_file(workspace, path), key, cell=cell)


def drawn(folder: Path) -> list[Path]:
    """The pictures in a folder, the latest first, without the contact sheet that is made of them."""
    found = [path for path in folder.glob("**/*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    found = [path for path in found if path.stem != "sheet"]
    return sorted(found, key=lambda path: (path.stat().st_mtime, path.name), reverse=True)


def facts(path: Path) -> dict[str, str]:
    """What a picture says it was drawn from, in the text of its PNG."""
    try:
        with Image.open(path) as image:
            return {str(name): value for name, value in image.info.items() if isinstance(value, str)}
    except OSError:
        return {}


def described(told: Mapping[str, str]) -> str:
    """What a picture was drawn from, in a line."""
    parts = [told.get("prompt", ""), f"seed {told['seed']}" if "seed" in told else ""]
    return ", ".join(part for part in parts if part)


def show(things: Sequence[Thing], tile: Callable[[Thing], Tile], key: str, *, cell: int = 150) -> None:
    """Draw a page of things as tiles, with a pager; what is on other pages is not touched."""
    page = pager(len(things), key, PER_PAGE)
    shown = "".join(_figure(tile(thing)) for thing in things[(page - 1) * PER_PAGE : page * PER_PAGE])
    st.html(f'<div class="ll-grid" style="--cell:{cell}px">{shown}</div>')


def picture(tile: Tile) -> None:
    """Draw one picture by itself, whole."""
    st.html(f'<div class="ll-picture">{_figure(tile, words=False)}</div>')


def square(tile: Tile) -> None:
    """Draw one picture by itself as a square cell with its words."""
    st.html(f'<div class="ll-grid">{_figure(tile)}</div>')


def pager(count: int, key: str, per_page: int) -> int:
    """The page in view, from 1; the pager shows only when there is more than one."""
    pages = max(1, -(-count // per_page))
    return st.pagination(pages, key=f"{key}.page", persist_state="session") if pages > 1 else 1


def _figure(tile: Tile, *, words: bool = True) -> str:
    alt = escape(f"{tile.title}: {tile.text}" if tile.text else tile.title, quote=True)
    below = f"<figcaption><b>{escape(tile.title)}</b><span>{escape(tile.text)}</span></figcaption>" if words else ""
    send = f' data-send="{escape(tile.send, quote=True)}"' if tile.send else ""
    return (
        f'<figure><a href="{escape(tile.full)}" target="_blank" title="{alt}"{send}>'
        f'<img src="{escape(tile.thumb)}" alt="{alt}" loading="lazy"></a>{below}</figure>'
    )
