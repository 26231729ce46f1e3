"""One file on its way into a dataset, from wherever it comes, read within limits.

Limits: 512 MiB a file; from a ZIP also at most 200 times its packed size, once it has grown beyond 1 MiB.
"""

import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

MAX_ENTRIES = 20_000
MAX_FILE_BYTES = 512 * 2**20
MAX_RATIO = 200
RATIO_FLOOR_BYTES = 2**20
CHUNK_BYTES = 2**20
HEAD_BYTES = 16

_SYSTEM_FILES = {"thumbs.db", "desktop.ini", ".ds_store"}
_PICTURE_HEADS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF87a", b"GIF89a"),
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # TIFF and BigTIFF in both byte orders
)
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis")
_AVIF_BRANDS = (b"avif", b"avis")
_EITHER_BRANDS = (b"mif1", b"msf1")


class Unusable(Exception):
    """Why a file is left out, in words for a person."""


@dataclass(frozen=True)
class Entry:
    """A file to import.

    Attributes:
        path: inside its source, with "/" between folders; only ever data.
        open: gives its bytes.
        packed_bytes: its size inside a ZIP, None elsewhere.
        problem: why it must not be read, or empty.
    """

    path: str
    open: Callable[[], IO[bytes]]
    packed_bytes: int | None = None
    problem: str = ""

    @property
    def name(self) -> str:
        """The file name without folders."""
        return PurePosixPath(self.path).name

    @property
    def suffix(self) -> str:
        """Of the name, in lower case."""
        return PurePosixPath(self.path).suffix.lower()

    def check(self) -> None:
        """Raise Unusable for what is never a user's own file."""
        parts = [part for part in self.path.split("/") if part not in ("", ".", "..")]
        if self.problem:
            raise Unusable(self.problem)
        if "__MACOSX" in parts or self.name.lower() in _SYSTEM_FILES or self.name.startswith("._"):
            raise Unusable("system file")
        if any(part.startswith(".") for part in parts):
            raise Unusable("hidden file")

    def chunks(self, limit_bytes: int = MAX_FILE_BYTES) -> Iterator[bytes]:
        """The bytes in pieces of at most 1 MiB; real bytes are counted, whatever the archive says.

        Raises:
            Unusable: damaged, too large, or a bomb.
        """
        total = 0
        try:
            with self.open() as file:
                while piece := file.read(CHUNK_BYTES):
                    total += len(piece)
                    self._check_size(total, limit_bytes)
                    yield piece
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
            raise Unusable(f"damaged inside the ZIP ({error})") from None
        except (NotImplementedError, RuntimeError) as error:
            raise Unusable(f"packed in an unknown way ({error})") from None
        except OSError as error:
            raise Unusable(f"cannot be read ({error.strerror or error})") from None

    def read(self, limit_bytes: int) -> bytes:
        """All bytes of a small file."""
        return b"".join(self.chunks(limit_bytes))

    def _check_size(self, total: int, limit_bytes: int) -> None:
        if total > limit_bytes:
            raise Unusable(f"larger than {limit_bytes // 2**20} MiB")
        if self.packed_bytes is not None and total > max(RATIO_FLOOR_BYTES, MAX_RATIO * self.packed_bytes):
            raise Unusable(f"unpacks to more than {MAX_RATIO} times its size: a ZIP bomb")


def check_head(head: bytes) -> None:
    """Raise Unusable unless the first 16 bytes are those of a picture that we read."""
    if head.startswith(_PICTURE_HEADS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return
    if not head:
        raise Unusable("empty file")
    if head[4:8] == b"ftyp" and head[8:12] in (*_HEIC_BRANDS, *_AVIF_BRANDS, *_EITHER_BRANDS):
        return
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!")):
        raise Unusable("an archive inside; take it out and import it by itself")
    raise Unusable("not a picture: neither JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF nor HEIC by its content")
