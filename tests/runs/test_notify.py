import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from lora_lightning.errors import InputError
from lora_lightning.runs import launch, notify
from lora_lightning.runs.job import reserve


@pytest.fixture
def receiver():
    """A server that keeps what it is told, and its address."""
    told = []

    class Keeper(BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Keeper)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", told
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_supervisor_tells_how_a_job_ended(workspace, receiver):
    url, told = receiver
    notify.set_address(workspace, url)
    run = reserve(workspace, "train", "mine", "name: mine\n")
    launch._detach(run, [sys.executable, "-c", "import sys; sys.exit(7)"])
    deadline = time.monotonic() + 20
    while not told and time.monotonic() < deadline:
        time.sleep(0.05)
    assert told[0]["run"] == "mine"
    assert told[0]["state"] == "failed"
    assert "exit code 7" in told[0]["text"]


def test_nothing_is_sent_without_an_address_and_trouble_is_no_error(workspace, receiver):
    url, told = receiver
    run = reserve(workspace, "train", "mine", "name: mine\n")
    assert not notify.tell(workspace, run)
    notify.set_address(workspace, "http://127.0.0.1:9/")
    assert not notify.tell(workspace, run)
    notify.set_address(workspace, url)
    assert notify.tell(workspace, run)
    notify.set_address(workspace, "")
    assert not notify.tell(workspace, run)
    assert len(told) == 1


@pytest.mark.parametrize("wrong", ["file:///etc/passwd", "example.org/hook", "https://"])
def test_only_web_addresses_are_taken(workspace, wrong):
    with pytest.raises(InputError, match="no web address"):
        notify.set_address(workspace, wrong)
    assert notify.address(workspace) == ""
