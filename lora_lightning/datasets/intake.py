"""From sources to pictures that are copied, decoded once to prove them whole, and named; and to texts."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lora_lightning.datasets.captions import MAX_CAPTIONS_BYTES
from lora_lightning.datasets.colour import TRANSPARENCY, WHITE, Unreadable
from lora_lightning.datasets.entries import Entry, Unusable
from lora_lightning.datasets.images import decode, stored_name, verify_png
from lora_lightning.datasets.matching import Names
from lora_lightning.datasets.names import UniqueNames, clean
from lora_lightning.datasets.report import FileNote, ImportReport
from lora_lightning.datasets.sources import Source
from lora_lightning.datasets.staging import Staged, Staging, sync
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.errors import DatasetError

MAX_TEXTS_BYTES = 64 * 2**20
MAX_NAME_CHARACTERS = 200
MAX_WORKERS = 4
TEXT_SUFFIXES = (".txt", ".caption", ".json", ".jsonl", ".csv")


@dataclass(frozen=True)
class Facts:
    """What decoding tells about a picture; sides in pixels, upright."""

    width: int
    height: int
    format: str
    changes: tuple[str, ...]

    @property
    def transparent(self) -> bool:
        """Whether a background shows through."""
        return any(change.startswith(TRANSPARENCY) for change in self.changes)


@dataclass(frozen=True)
class Text:
    """A file that may hold captions."""

    source: Source
    entry: Entry
    data: bytes


@dataclass(frozen=True)
class Arrival:
    """A picture ready to join the dataset."""

    staged: Path
    picture: Picture


@dataclass(frozen=True)
class _Candidate:
    """A copied file whose bytes are being decoded."""

    source: Source
    entry: Entry
    staged: Staged


class Intake:
    """What an import brings in.

    Attributes:
        found: how many files begin as pictures do, new or not, sound or not.
        arrivals: the new pictures.
        texts: the files that may hold captions.
        names: which picture is called what, for matching captions.

    Args:
        dataset: to add to.
        staging: where files are copied to.
        report: grows.
        on: the colour behind what is transparent, `#rrggbb`.
    """

    def __init__(self, dataset: Dataset, staging: Staging, report: ImportReport, on: str = WHITE) -> None:
        stored = dataset.pictures(include_aside=True)
        self.found = 0
        self.arrivals: list[Arrival] = []
        self.texts: list[Text] = []
        self.names = Names(stored)
        self._staging = staging
        self._report = report
        self._on = on
        self._next_id = dataset.next_id()
        self._known = {picture.sha256: picture for picture in stored}
        self._unique = UniqueNames(picture.name for picture in stored)
        self._decoding: dict[str, Future[Facts]] = {}
        self._text_bytes = 0

    def collect(self, sources: Sequence[Source]) -> None:
        """Read every source.

        Raises:
            DatasetError: a ZIP or folder holds neither pictures nor captions.
        """
        pool = ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1), "decode")
        try:
            candidates = []
            for source in sources:
                seen, texts = len(self._report.rejected), len(self.texts)
                found = [c for entry in source.entries if (c := self._take(source, entry, pool))]
                if source.scope and not found and len(self.texts) == texts:
                    raise nothing_usable(source.name, self._report.rejected[seen:])
                candidates += found
            self.found = len(candidates)
            for candidate in candidates:
                self._accept(candidate)
        finally:
            pool.shutdown(cancel_futures=True)

    def _take(self, source: Source, entry: Entry, pool: ThreadPoolExecutor) -> _Candidate | None:
        """Copy a picture and start decoding it, or keep a text."""
        try:
            entry.check()
            if entry.suffix in TEXT_SUFFIXES:
                self._take_text(source, entry)
                return None
            staged = self._staging.take(entry)
        except Unusable as reason:
            self._report.reject(entry.path, reason)
            return None
        if staged.sha256 not in self._known and staged.sha256 not in self._decoding:
            self._decoding[staged.sha256] = pool.submit(_inspect, staged.path, self._on)
        return _Candidate(source, entry, staged)

    def _take_text(self, source: Source, entry: Entry) -> None:
        data = entry.read(MAX_CAPTIONS_BYTES)
        self.texts.append(Text(source, entry, data))
        self._text_bytes += len(data)
        if self._text_bytes > MAX_TEXTS_BYTES:
            limit = f"{MAX_TEXTS_BYTES // 2**20} MiB"
            raise DatasetError(f"the captions are larger than {limit} together", "Import them in several parts.")

    def _accept(self, candidate: _Candidate) -> None:
        """Give a sound picture its number and name; bytes that are there already lend their number to captions."""
        entry, sha256 = candidate.entry, candidate.staged.sha256
        picture = self._known.get(sha256)
        if picture is not None:
            place = "set aside" if picture.aside else "in the dataset"
            self._report.reject(entry.path, f"the same picture as {picture.name}, which is {place}")
        else:
            try:
                facts = self._decoding[sha256].result()
            except Unreadable as reason:
                self._report.reject(entry.path, reason)
                return
            picture = self._picture(entry, sha256, facts)
            self._known[sha256] = picture
            self.arrivals.append(Arrival(candidate.staged.path, picture))
        self.names.add(candidate.source.scope, entry.path, picture.id)

    def _picture(self, entry: Entry, sha256: str, facts: Facts) -> Picture:
        id = self._next_id + len(self.arrivals)
        wanted = clean(entry.name)[-MAX_NAME_CHARACTERS:] or "picture"
        name = self._unique.take(wanted)
        renamed = "" if name == wanted else f"; called {name!r} because the name was taken"
        self._report.accept(entry.path, f"{facts.width} x {facts.height} {facts.format}{renamed}", facts.changes)
        file = stored_name(id, sha256, facts.format, self._on if facts.transparent else WHITE)
        return Picture(id, file, name, sha256, facts.width, facts.height)


def nothing_usable(where: str, rejected: Sequence[FileNote]) -> DatasetError:
    """The error for sources without a single usable picture; its hint is the first reason why."""
    reason = next((note for note in rejected if note.reason != "system file"), None)
    hint = f"{reason.file}: {reason.reason}." if reason else "Give JPEG, PNG, WebP or other pictures."
    return DatasetError(f"there is no picture in {where} that can be used", hint)


def _inspect(path: Path, on: str) -> Facts:
    """Decode a picture to the end, then bring its bytes to the disk."""
    decoded = decode(path, on=on)
    if decoded.format == "PNG":
        verify_png(path)
    sync(path)
    return Facts(*decoded.image.size, decoded.format, decoded.changes)
