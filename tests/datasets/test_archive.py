"""ZIPs made to do harm."""

import bz2
import struct
import time
import zipfile
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_lightning.datasets.archive import open_zip
from lora_lightning.datasets.entries import Unusable
from lora_lightning.errors import DatasetError

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def contents(path):
    with open_zip(path) as entries:
        return {entry.path: b"".join(entry.chunks()) for entry in entries}


def test_every_usual_packing_is_read(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, method in enumerate(
            (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        ):
            archive.writestr(f"{number}.txt", b"hello" * 100, compress_type=method)
        archive.comment = b"made by hand"
    assert contents(path) == {f"{number}.txt": b"hello" * 100 for number in range(4)}


def test_something_before_the_zip_does_no_harm(tmp_path, make_zip):
    path = make_zip({"a.txt": b"hello"})
    path.write_bytes(b"#!self-extracting\n" + path.read_bytes())
    assert contents(path) == {"a.txt": b"hello"}


def end_record(count, directory_bytes, start):
    return b"PK\x05\x06" + struct.pack(
        "<HHHHIIH", 0, 0, min(count, 0xFFFF), min(count, 0xFFFF), directory_bytes, start, 0
    )


def large_record(count, directory_bytes):
    return b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, directory_bytes, 0)


@pytest.mark.parametrize("form", ["plain", "zip64", "zip64 with a false record where the locator points"])
def test_a_million_entries_are_refused_before_they_are_read(tmp_path, form):
    count = 60_000 if form == "plain" else 1_000_000
    data = (b"PK\x01\x02" + bytes(42)) * count
    if form == "plain":
        end = end_record(count, len(data), 0)
    else:
        false = large_record(1, 46) if "false" in form else b""
        locator = b"PK\x06\x07" + struct.pack("<IQI", 0, len(data), 1)
        end = false + large_record(count, len(data)) + locator + end_record(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    path = tmp_path / "many.zip"
    path.write_bytes(data + end)
    started = time.perf_counter()
    with pytest.raises(DatasetError, match=f"has {count:,} entries"), open_zip(path):
        pass
    assert time.perf_counter() - started < 1


def test_a_count_that_lies_does_not_help(tmp_path):
    data = (b"PK\x01\x02" + bytes(42)) * 200_000
    path = tmp_path / "lie.zip"
    path.write_bytes(data + end_record(1, len(data), 0))
    with pytest.raises(DatasetError, match="8 MiB of names"), open_zip(path):
        pass


def test_entries_that_share_bytes_are_refused(tmp_path):
    """Many directory entries on one local header: the quoted-overlap bomb of D. Fifield, WOOT 2019."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(10**6)) + packer.flush()
    crc = zlib.crc32(bytes(10**6))
    local = b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, crc, len(packed), 10**6, 5, 0) + b"a.bmp"
    central = struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 8, 0, 33, crc, len(packed), 10**6, 5, 0, 0, 0, 0, 0, 0)
    directory = (b"PK\x01\x02" + central + b"a.bmp") * 50
    path = tmp_path / "overlap.zip"
    path.write_bytes(local + packed + directory + end_record(50, len(directory), len(local) + len(packed)))
    with pytest.raises(DatasetError, match="overlaps another entry"), open_zip(path):
        pass


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_damaged_entry_says_so(tmp_path, method):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.bin", bz2.compress(bytes(range(256)) * 40) * 5)
    data = bytearray(path.read_bytes())
    for at in range(45, 75):
        data[at] ^= 0x55
    path.write_bytes(bytes(data))
    with open_zip(path) as entries, pytest.raises(Unusable, match=r"damaged|cannot be read"):
        b"".join(entries[0].chunks())


def test_an_unknown_packing_says_so(tmp_path, make_zip):
    path = make_zip({"a.txt": b"hello"})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", data, data.find(signature) + offset, 97)
    path.write_bytes(bytes(data))
    with open_zip(path) as entries, pytest.raises(Unusable, match="packed in an unknown way"):
        b"".join(entries[0].chunks())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_zips_raise_nothing_else(tmp_path, data):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"\x89PNG" * 20)
        archive.writestr("b/b.txt", "a caption")
    content = bytearray(path.read_bytes())
    places = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255))
    for position, value in data.draw(st.lists(places, min_size=1, max_size=8)):
        content[position] = value
    path.write_bytes(bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))]))
    try:
        with open_zip(path) as entries:
            for entry in entries:
                try:
                    entry.check()
                    b"".join(entry.chunks())
                except Unusable:
                    continue
    except DatasetError:
        return
