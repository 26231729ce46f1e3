import subprocess
import sys
import time

import pytest

from lora_lightning.runs.files import Lock, read_json, write_atomic, write_json

WRITER = """
import sys
from pathlib import Path
from lora_lightning.runs.files import write_json
print("ready", flush=True)
for number in range(10**9):
    write_json(Path(sys.argv[1]), {"number": number, "filler": "x" * 200_000})
"""


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = write_json(tmp_path / "value.json", {"old": 1})

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, fail)
    assert read_json(path) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]


def test_a_killed_writer_never_leaves_half_a_file(tmp_path):
    path = tmp_path / "value.json"
    for pause in (0.01, 0.03, 0.05, 0.02, 0.04):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"ready\n"
        while not path.exists():
            time.sleep(0.005)
        time.sleep(pause)
        writer.kill()
        writer.communicate()
        value = read_json(path)
        assert set(value) == {"number", "filler"}


def test_what_is_not_there_or_not_json_reads_as_nothing(tmp_path):
    assert read_json(tmp_path / "absent.json") == {}
    (tmp_path / "broken.json").write_text('{"half')
    assert read_json(tmp_path / "broken.json") == {}


HOLDER = """
import sys, time
from pathlib import Path
from lora_lightning.runs.files import Lock
lock = Lock(Path(sys.argv[1]))
assert lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_is_exclusive_and_freed_by_any_death(tmp_path):
    lock = Lock(tmp_path / "a.lock")
    assert not lock.held()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock.path)], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    assert lock.held()
    assert not lock.acquire(timeout_seconds=0)
    holder.kill()
    holder.communicate()
    assert not lock.held()
    assert lock.acquire(timeout_seconds=0)
    assert lock.held()
    lock.release()
    assert not lock.held()
