"""Reading a ZIP that anybody may have made: streamed, bounded, and never unpacked by its own names."""

import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_lightning.datasets.entries import MAX_ENTRIES, Entry
from lora_lightning.errors import DatasetError

MAX_DIRECTORY_BYTES = 8 * 2**20
_END_BYTES, _LOCATOR_BYTES, _END64_BYTES = 22, 20, 56
_MAX_COMMENT_BYTES = 65_535
_UTF8_FLAG = 0x800
_ENCRYPTED_FLAG = 0x1


def is_zip(path: Path) -> bool:
    """Whether the file begins as a ZIP does, be it an empty one."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


@contextmanager
def open_zip(path: Path) -> Iterator[list[Entry]]:
    """The files of a ZIP; folders are left out.

    Limits: 20,000 entries, a directory of 8 MiB; those of one file are in `entries`.

    Raises:
        DatasetError: no ZIP, damaged, encrypted, empty, overlapping, or too many entries.
    """
    _check_directory(path)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise _damaged(path, str(error)) from None
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        if not infos:
            raise DatasetError(f"{path.name} is an empty ZIP", "Put the pictures into it and import it again.")
        if any(info.flag_bits & _ENCRYPTED_FLAG for info in infos):
            raise DatasetError(f"{path.name} is encrypted", "Unpack it with its password and import the folder.")
        _check_overlap(path, archive)
        yield [_entry(archive, info) for info in infos]


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Entry:
    kind = stat.S_IFMT(info.external_attr >> 16)
    regular = kind in (0, stat.S_IFREG)
    return Entry(
        path=_real_name(info).replace("\\", "/"),
        open=lambda: archive.open(info),
        packed_bytes=info.compress_size,
        problem="" if regular else "a link or a device, not a file",
    )


def _real_name(info: zipfile.ZipInfo) -> str:
    """The entry's name; macOS writes UTF-8 without saying so, which the standard reads as cp437."""
    if info.flag_bits & _UTF8_FLAG:
        return info.filename
    try:
        return info.filename.encode("cp437").decode()
    except UnicodeError:
        return info.filename


def _check_directory(path: Path) -> None:
    """Look at the end record first, because opening a directory of a million entries costs gigabytes.

    Source: APPNOTE 6.3.10, sections 4.3.14 to 4.3.16.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _END_BYTES - _MAX_COMMENT_BYTES - _LOCATOR_BYTES - _END64_BYTES))
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < _END_BYTES:
            raise _damaged(path, "its end is missing")
        found = [struct.unpack_from("<HI", tail, at + 10)]
        locator = at - _LOCATOR_BYTES
        if locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
            # Readers differ in where they look for the large record: right before, or where the locator points.
            file.seek(min(struct.unpack_from("<Q", tail, locator + 8)[0], size))
            records = [tail[max(0, locator - _END64_BYTES) : locator], file.read(_END64_BYTES)]
            records = [record for record in records if record[:4] == b"PK\x06\x06" and len(record) == _END64_BYTES]
            found = [struct.unpack_from("<QQ", record, 32) for record in records] or found
    count, directory_bytes = map(max, zip(*found, strict=True))
    if count > MAX_ENTRIES or directory_bytes > MAX_DIRECTORY_BYTES:
        raise DatasetError(
            f"{path.name} has {count:,} entries; at most {MAX_ENTRIES:,} with 8 MiB of names are read at once",
            "Split it into several ZIPs and import them one after the other.",
        )


def _check_overlap(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse entries that share bytes: a small file that unpacks to petabytes (CVE-2024-0450)."""
    end = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise _damaged(path, f"{info.filename!r} overlaps another entry")
        end = info.header_offset + 30 + info.compress_size


def _damaged(path: Path, reason: str) -> DatasetError:
    return DatasetError(f"{path.name} is not a ZIP, or is damaged: {reason}", "Make the ZIP again, or give a folder.")
