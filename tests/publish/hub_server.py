"""A loopback server that speaks the Hugging Face Hub's API as huggingface_hub uses it, and keeps what it gets on disk.

    python tests/publish/hub_server.py --port 8765 --folder DIR

Clients need HF_ENDPOINT=http://127.0.0.1:8765, HF_TOKEN=<WRITE_TOKEN>, HF_HUB_DISABLE_XET=1 (Xet is another protocol)
and no HF_HUB_OFFLINE. On disk: FOLDER/USER/NAME/{meta.json, files/...} and FOLDER/lfs/SHA256.
"""

import argparse
import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

USER = "tester"
WRITE_TOKEN, READ_TOKEN = "hf_" + "w" * 34, "hf_" + "r" * 34
LFS_SUFFIXES = (".safetensors", ".png")
LICENCES = ("apache-2.0", "mit", "other")
FRONT_MATTER = re.compile(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\n|$))")
"""As the Hub finds a card's metadata (huggingface_hub.constants)."""
REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
API = rf"/api/(?:models|datasets)/{REPO}"


@dataclass
class Repo:
    """One repository on disk."""

    folder: Path
    id: str

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def meta(self) -> dict:
        return json.loads((self.folder / "meta.json").read_text())

    def save(self, **meta: object) -> None:
        self.files.mkdir(parents=True, exist_ok=True)
        (self.folder / "meta.json").write_text(json.dumps(meta))

    def listing(self) -> list[dict]:
        paths = sorted(path for path in self.files.rglob("*") if path.is_file())
        return [self.entry(str(path.relative_to(self.files))) for path in paths]

    def entry(self, path: str) -> dict:
        data = (self.files / path).read_bytes()
        entry: dict = {"type": "file", "path": path, "size": len(data), "oid": git_sha1(data)}
        if path.endswith(LFS_SUFFIXES):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def known(self, path: str) -> str | None:
        """What the Hub tells of a stored file before an upload, so that an equal one is left out."""
        if not (self.files / path).is_file():
            return None
        entry = self.entry(path)
        return entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]

    def info(self) -> dict:
        meta, names = self.meta, [entry["path"] for entry in self.listing()]
        return {"_id": "0", "id": self.id, "modelId": self.id, "private": meta["private"], "sha": meta["sha"],
                "gated": meta.get("gated", False), "disabled": False, "tags": [], "downloads": 0, "likes": 0,
                "siblings": [{"rfilename": name} for name in names]}  # fmt: skip


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Answer:
    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)


def refusal(status: int, message: str, code: str = "") -> Answer:
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return Answer(status, {"error": message}, headers)


class Hub(ThreadingHTTPServer):
    """The server; `cut_uploads` breaks that many uploads halfway, `requests` lists what was asked."""

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.folder, self.url = folder, f"http://127.0.0.1:{self.server_address[1]}"
        self.requests: list[str] = []
        self.cut_uploads = 0
        self.lie_about_sizes = False

    def repo(self, id: str) -> Repo:
        return Repo(self.folder / id, id)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do(self) -> None:
        url = urlsplit(self.path)
        self.query, path = parse_qs(url.query), unquote(url.path)
        self.server.requests.append(f"{self.command} {path}")
        self.token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        length = int(self.headers.get("Content-Length") or 0)
        if path.startswith("/lfs/") and self.command == "PUT" and self.server.cut_uploads > 0:
            self.server.cut_uploads -= 1
            self.rfile.read(length // 2)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.data = self._body(length)
        self._send(self._route(path))

    do_GET = do_POST = do_PUT = do_HEAD = do

    def _body(self, length: int) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(length)
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, answer: Answer) -> None:
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in ({"Content-Type": "application/json"} | answer.headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _route(self, path: str) -> Answer:
        if self.token and self.token not in (WRITE_TOKEN, READ_TOKEN):
            return refusal(401, "Invalid credentials in Authorization header")
        for pattern, action in ROUTES:
            found = re.fullmatch(pattern, f"{self.command} {path}")
            if found:
                return action(self, **found.groupdict())
        return refusal(404, "Sorry, we can't find the page you are looking for.")

    @property
    def json(self) -> dict:
        return json.loads(self.data)

    def whoami(self) -> Answer:
        return Answer(body={"type": "user", "name": USER, "orgs": []}) if self.token else refusal(401, "Unauthorized")

    def validate_yaml(self) -> Answer:
        found = FRONT_MATTER.match(self.json["content"])
        try:
            card = yaml.safe_load(found[2]) if found else None
        except yaml.YAMLError as error:
            return Answer(400, {"errors": [{"message": str(error)}], "warnings": []})
        if not card:
            return Answer(body={"errors": [], "warnings": [{"message": "empty or missing yaml metadata"}]})
        errors = [] if card.get("license") in (None, *LICENCES) else [{"message": f"license {card['license']}"}]
        if card.get("license") == "other" and not card.get("license_name"):
            errors.append({"message": "license_name is required"})
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", card.get("base_model", "a/b")):
            errors.append({"message": "base_model is no repository"})
        return Answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def create(self) -> Answer:
        asked = self.json
        id = f"{asked.get('organization') or USER}/{asked['name']}"
        refused = self._may_write(id)
        if refused:
            return refused
        if self.server.repo(id).folder.exists():
            return Answer(409, {"error": "You already created this model repo", "url": f"{self.server.url}/{id}"})
        private = asked.get("private") or asked.get("visibility") == "private"
        self.server.repo(id).save(private=bool(private), sha=hashlib.sha1(b"").hexdigest())
        return Answer(body={"url": f"{self.server.url}/{id}", "name": id})

    def info(self, repo: str, revision: str | None = None) -> Answer:
        return self._refused(repo) or Answer(body=self.server.repo(repo).info())

    def tree(self, repo: str, revision: str) -> Answer:
        return self._refused(repo) or Answer(body=self.server.repo(repo).listing())

    def paths_info(self, repo: str, revision: str) -> Answer:
        wanted = parse_qs(self.data.decode())["paths"]
        found = [entry for entry in self.server.repo(repo).listing() if entry["path"] in wanted]
        if self.server.lie_about_sizes:
            found = [entry | {"size": entry["size"] + 1} for entry in found]
        return self._refused(repo) or Answer(body=found)

    def preupload(self, repo: str, revision: str) -> Answer:
        known = self.server.repo(repo).known
        files = [{"path": file["path"], "shouldIgnore": False, "oid": known(file["path"]),
                  "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"}
                 for file in self.json["files"]]  # fmt: skip
        return self._may_write(repo) or Answer(body={"files": files})

    def lfs_batch(self, repo: str) -> Answer:
        objects = []
        for asked in self.json["objects"]:
            href = f"{self.server.url}/lfs/{asked['oid']}"
            upload = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            stored = (self.server.folder / "lfs" / asked["oid"]).is_file()
            objects.append(asked if stored else asked | {"actions": upload})
        return self._may_write(repo) or Answer(body={"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> Answer:
        if hashlib.sha256(self.data).hexdigest() != oid:
            return refusal(400, "the content has another SHA-256")
        target = self.server.folder / "lfs" / oid
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.data)
        return Answer(body={})

    def lfs_verify(self, oid: str) -> Answer:
        stored = self.server.folder / "lfs" / oid
        right = stored.is_file() and stored.stat().st_size == self.json["size"]
        return Answer(body={}) if right else refusal(404, "not stored")

    def commit(self, repo: str, revision: str) -> Answer:
        refused = self._may_write(repo)
        if refused:
            return refused
        target = self.server.repo(repo)
        for line in self.data.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self._store(target, value["path"], base64.b64decode(value["content"]))
            elif entry["key"] == "lfsFile":
                self._store(target, value["path"], (self.server.folder / "lfs" / value["oid"]).read_bytes())
        sha = hashlib.sha1(self.data + target.meta["sha"].encode()).hexdigest()
        target.save(**target.meta | {"sha": sha})
        url = f"{self.server.url}/{repo}/commit/{sha}"
        return Answer(body={"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def resolve(self, repo: str, revision: str, path: str) -> Answer:
        stored = self.server.repo(repo)
        refused = self._refused(repo)
        if not refused and stored.meta.get("gated"):
            return refusal(403, "Access to this model is restricted", "GatedRepo")
        if refused or not (stored.files / path).is_file():
            return refused or refusal(404, "Entry not found", "EntryNotFound")
        headers = {"ETag": f'"{stored.known(path)}"', "X-Repo-Commit": stored.meta["sha"],
                   "Content-Type": "application/octet-stream"}  # fmt: skip
        return Answer(body=(stored.files / path).read_bytes(), headers=headers)

    def page(self, repo: str) -> Answer:
        if self._refused(repo):
            return refusal(404, "Not found")
        rows = "".join(f"<li>{escape(entry['path'])} ({entry['size']} bytes)" for entry in
                       self.server.repo(repo).listing())  # fmt: skip
        page = f"<!doctype html><title>{repo}</title><h1>{repo}</h1><ul>{rows}</ul>"
        return Answer(body=page.encode(), headers={"Content-Type": "text/html; charset=utf-8"})

    def _store(self, repo: Repo, path: str, data: bytes) -> None:
        target = (repo.files / path).resolve()
        assert target.is_relative_to(repo.files.resolve())
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def _refused(self, id: str) -> Answer | None:
        """The Hub says 401 to strangers, whether a repository is absent or private."""
        repo = self.server.repo(id)
        absent = not (repo.folder / "meta.json").is_file()
        if absent or (repo.meta["private"] and not self.token):
            return refusal(404 if self.token else 401, "Repository not found", "RepoNotFound")
        return None

    def _may_write(self, id: str) -> Answer | None:
        if not self.token:
            return refusal(401, "Unauthorized")
        if self.token == READ_TOKEN:
            return refusal(403, "You don't have the required permissions to perform this action")
        if not id.startswith(f"{USER}/"):
            return refusal(403, "You don't have the rights to create a model under this namespace")
        return None


ROUTES = (
    (r"GET /api/whoami-v2", Handler.whoami),
    (r"POST /api/validate-yaml", Handler.validate_yaml),
    (r"POST /api/repos/create", Handler.create),
    (rf"GET {API}(/revision/(?P<revision>[^/]+))?", Handler.info),
    (rf"GET {API}/tree/(?P<revision>[^/]+)", Handler.tree),
    (rf"POST {API}/paths-info/(?P<revision>[^/]+)", Handler.paths_info),
    (rf"POST {API}/preupload/(?P<revision>[^/]+)", Handler.preupload),
    (rf"POST {API}/commit/(?P<revision>[^/]+)", Handler.commit),
    (rf"POST /(?:datasets/)?{REPO}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    (r"PUT /lfs/(?P<oid>\w+)", Handler.lfs_upload),
    (r"POST /lfs/(?P<oid>\w+)/verify", Handler.lfs_verify),
    (rf"(?:GET|HEAD) /(?:datasets/)?{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
    (rf"GET /(?:datasets/)?{REPO}", Handler.page),
)


@contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[Hub]:
    """The server in a thread."""
    hub = Hub(folder, port)
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    hub = Hub(arguments.folder, arguments.port)
    print(f"HF_ENDPOINT={hub.url} HF_TOKEN={WRITE_TOKEN} HF_HUB_DISABLE_XET=1", flush=True)
    hub.serve_forever()
