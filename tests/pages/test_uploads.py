"""Files that a browser sends one by one, as the server takes them over HTTP."""

import http.client
import os
import time
from urllib.parse import quote, urlsplit

import pytest

from lora_lightning.datasets import entries
from lora_lightning.ui import uploads
from tests.pages.test_routes import served  # noqa: F401 - a fixture

BATCH = "0123456789abcdef" * 2


@pytest.fixture
def put(served):  # noqa: F811
    def send(path, body=b"x", headers=None):
        connection = http.client.HTTPConnection(urlsplit(served).netloc)
        connection.request("PUT", path, body, {uploads.HEADER: "1"} if headers is None else headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    return send


def arrived(workspace):
    root = workspace.home / ".uploads"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_files_arrive_with_their_folders_and_never_replace_one_another(put, workspace):
    for name, body in (
        ("a/1.jpg", b"first"),
        ("b/1.jpg", b"second"),
        ("a/1.jpg", b"third"),
        ("ü %.png", b"x" * 3_000_000),
    ):
        assert put(f"/uploads/{BATCH}/{quote(name)}", body) == 201
    assert arrived(workspace) == {
        f"{BATCH}/a/1.jpg": b"first",
        f"{BATCH}/b/1.jpg": b"second",
        f"{BATCH}/a/1 (2).jpg": b"third",
        f"{BATCH}/ü %.png": b"x" * 3_000_000,
    }


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/uploads/{BATCH}/..%2f..%2fevil.png", 400),
        (f"/uploads/{BATCH}/a/%2e%2e/%2e%2e/%2e%2e/evil.png", 400),
        (f"/uploads/{BATCH}//evil.png", 400),
        (f"/uploads/{BATCH}/{'x' * 250}.png", 400),
        (f"/uploads/{BATCH}/evil%00.png", 400),
        ("/uploads/datasets/evil.png", 403),
        ("/uploads/../evil.png", 403),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(put, workspace, path, status):
    assert put(path) == status
    assert not [path for path in workspace.home.rglob("*") if "evil" in path.name]


def test_another_site_cannot_send_anything(put, workspace):
    assert put(f"/uploads/{BATCH}/a.png", headers={}) == 403
    assert not (workspace.home / ".uploads").exists()


def test_a_file_that_is_too_large_leaves_nothing(put, workspace, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_FILE_BYTES", 1000)
    assert entries.MAX_FILE_BYTES > 1000
    assert put(f"/uploads/{BATCH}/a.png", b"x" * 1001) == 413
    assert arrived(workspace) == {}


def test_an_import_takes_its_upload_away_and_what_others_forgot(workspace, monkeypatch):
    root = workspace.home / ".uploads"
    for name in ("mine", "theirs", "forgotten"):
        (root / name).mkdir(parents=True)
    long_ago = time.time() - uploads.STALE_SECONDS - 60
    os.utime(root / "forgotten", (long_ago, long_ago))
    monkeypatch.setattr(uploads.st, "session_state", {"uploads.batch": "mine"})
    uploads.finish(workspace)
    assert [path.name for path in root.iterdir()] == ["theirs"]
