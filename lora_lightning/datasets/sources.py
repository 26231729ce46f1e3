"""What an import is given: ZIPs, folders, picture files and caption files, as entries of one kind."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from lora_lightning.datasets.archive import is_zip, open_zip
from lora_lightning.datasets.entries import MAX_ENTRIES, Entry
from lora_lightning.errors import DatasetError

EXPORTED_ZIP = "_processed_images.zip"
"""The end of the name of the ZIP among the seed's three files."""


@dataclass(frozen=True)
class Source:
    """One thing that the user gave.

    Attributes:
        path: of the ZIP, folder or file.
        entries: the files in it; a file is its own single entry.
        scope: a number for each ZIP and folder; 0 for all files given by themselves, as if they lay together.
    """

    path: Path
    entries: list[Entry]
    scope: int

    @property
    def name(self) -> str:
        """What the user calls it."""
        return self.path.name or str(self.path)


def open_sources(paths: Sequence[Path], stack: ExitStack) -> list[Source]:
    """Open every source; ZIPs stay open until the stack is closed.

    Raises:
        DatasetError: a source is missing, empty, no ZIP, or holds too many files.
    """
    if not paths:
        raise DatasetError("nothing was given to import", "Name a ZIP, a folder, pictures or a captions file.")
    expanded = [part for path in paths for part in _parts(Path(path).expanduser())]
    sources = [_open(path, number, stack) for number, path in enumerate(expanded, start=1)]
    count = sum(len(source.entries) for source in sources)
    if count > MAX_ENTRIES:
        raise DatasetError(
            f"{count:,} files are too many; at most {MAX_ENTRIES:,} are imported at once",
            "Import them in several parts into the same dataset.",
        )
    return sources


def _parts(path: Path) -> list[Path]:
    """A folder, and the ZIPs of exports in it, which belong to the captions beside them."""
    archives = sorted(path.glob(f"*{EXPORTED_ZIP}")) if path.is_dir() else []
    alone = archives and len(archives) == len(list(path.iterdir()))
    return archives if alone else [path, *archives]


def _open(path: Path, number: int, stack: ExitStack) -> Source:
    try:
        if path.is_dir():
            return Source(path, _walk(path), number)
        if not path.is_file():
            raise DatasetError(f"there is nothing to import at {path}", "Check the path of the ZIP, folder or file.")
        if path.suffix.lower() == ".zip" or is_zip(path):
            return Source(path, stack.enter_context(open_zip(path)), number)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}", "Make it readable, then try again.") from None
    return Source(path, [Entry(path.name, partial(_open_file, path))], 0)


def _walk(folder: Path) -> list[Entry]:
    """Every file below a folder, in a fixed order; links to folders are not followed, so there are no rings."""
    entries = []
    for parent, folders, files in os.walk(folder):
        folders.sort()
        if parent == str(folder):
            files = [name for name in files if not name.endswith(EXPORTED_ZIP)]
        for name in sorted(files) + [name for name in folders if os.path.islink(os.path.join(parent, name))]:
            path = Path(parent, name)
            problem = "" if path.is_file() else "a link to a folder, a broken link or a device, not a file"
            entries.append(Entry(path.relative_to(folder).as_posix(), partial(_open_file, path), problem=problem))
            if len(entries) > MAX_ENTRIES:
                raise DatasetError(
                    f"{folder} holds more than {MAX_ENTRIES:,} files", "Import it in several parts, folder by folder."
                )
    if not entries:
        raise DatasetError(f"folder {folder} is empty", "Put the pictures into it and import it again.")
    return entries


def _open_file(path: Path) -> IO[bytes]:
    return path.open("rb")
