import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from lora_lightning.caption.base import Answer, Request, Sampling
from lora_lightning.caption.captioners import openai_api
from lora_lightning.caption.captioners.openai_api import connect
from lora_lightning.errors import InputError, JobError, ModelError
from tests.caption.conftest import described

RED = Image.new("RGB", (2000, 1000), (250, 10, 10))


class Server(ThreadingHTTPServer):
    """A real server on this machine; `script` holds what the next posts get before they get an answer."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seen, self.headers, self.known = [], [], [], ["looker"]
        self.text, self.finish, self.together = "A red picture.", "stop", threading.Barrier(1)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, code, value, **headers):
        body = json.dumps(value).encode()
        self.send_response(code)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        server = self.server
        server.headers.append(dict(self.headers))
        if server.known is None:
            return self.answer(404, {"error": "no such page"})
        return self.answer(200, {"data": [{"id": name} for name in server.known]})

    def do_POST(self):
        server = self.server
        server.headers.append(dict(self.headers))
        server.seen.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        server.together.wait(10)
        if server.script:
            code, value, headers = server.script.pop(0)
            if code == 0:  # hang up without a word
                return self.connection.close()
            return self.answer(code, value, **headers)
        message = {"role": "assistant", "content": server.text}
        return self.answer(200, {"choices": [{"message": message, "finish_reason": server.finish}]})


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(openai_api, "PAUSE_SECONDS", 0.01)
    monkeypatch.delenv("CAPTION_API_KEY", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Server()
    yield made
    made.shutdown()
    made.server_close()


def test_a_picture_travels_with_its_prompt_and_sampling(server):
    request = Request(RED, "What is it?", 2**40 + 5, Sampling(0.5, 0.8, 77))
    assert connect(server.endpoint, "looker").describe(request) == Answer("A red picture.")
    ((path, sent),) = server.seen
    assert path == "/v1/chat/completions"
    picture, text = sent["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    kind, data = picture["image_url"]["url"].split(",")
    assert kind == "data:image/jpeg;base64"
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    assert shown.size == (1536, 768)
    assert shown.getpixel((5, 5))[0] > 240
    assert (sent["model"], sent["max_tokens"], sent["temperature"], sent["top_p"]) == ("looker", 77, 0.5, 0.8)
    assert sent["seed"] == (2**40 + 5) % 2**31


def test_as_many_pictures_as_asked_for_are_on_their_way_at_once(server):
    server.together = threading.Barrier(3)  # nobody is answered before the third has come
    captioner = connect(server.endpoint, "looker")
    answers = described(captioner, [Request(RED, str(place)) for place in range(6)], size=3)
    assert answers == [Answer("A red picture.")] * 6


def test_a_caption_job_leaves_the_key_nowhere(server, caption, dataset, workspace, monkeypatch):
    monkeypatch.setenv("CAPTION_API_KEY", "s3cret")
    report = caption(captioner="looker", endpoint=server.endpoint, prefix="OHWX, ").report
    assert (report["captioned"], report["failed"]) == (5, [])
    first = dataset.pictures()[0]
    assert (first.caption, first.author) == ("OHWX, A red picture.", "looker")
    assert dataset.history(first.id)[0].details["endpoint"] == server.endpoint
    assert server.headers[-1]["Authorization"] == "Bearer s3cret"
    left = [path for path in workspace.home.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert left == []


def test_a_server_that_gives_up_ends_the_job_and_keeps_what_is_there(server, caption, dataset):
    trouble = (503, {}, {})
    server.script = [(200, {"choices": [{"message": {"content": "A picture."}}]}, {})] + [trouble] * 99
    with pytest.raises(JobError, match="5 times"):
        caption(captioner="looker", endpoint=server.endpoint, batch_size=1)
    assert [picture.caption for picture in dataset.pictures()] == ["A picture.", "", "", "", ""]


def test_the_token_limit_is_told(server):
    server.finish = "length"
    assert connect(server.endpoint, "looker").describe(Request(RED, "p")).end == "cut"


@pytest.mark.parametrize(
    "trouble", [(503, {}, {}), (429, {"error": {"message": "slow"}}, {"Retry_After": "0"}), (0, 0, 0)]
)
def test_what_may_pass_is_tried_again(server, trouble):
    server.script = [trouble, trouble]
    assert connect(server.endpoint, "looker").describe(Request(RED, "p")) == Answer("A red picture.")
    assert len(server.seen) == 3


def test_what_does_not_pass_ends_with_what_the_server_said(server):
    server.script = [(503, {"error": {"message": "the model is loading"}}, {})] * 9
    with pytest.raises(JobError, match="503: the model is loading, 5 times"):
        connect(server.endpoint, "looker").describe(Request(RED, "p"))
    assert len(server.seen) == 5


def test_a_refusal_is_not_repeated(server):
    server.script = [(403, {"error": {"message": "not for you"}}, {})]
    with pytest.raises(ModelError, match="403: not for you"):
        connect(server.endpoint, "looker").describe(Request(RED, "p"))
    assert len(server.seen) == 1


def test_a_picture_that_the_server_refuses_is_reported_and_the_others_go_on(server, caption, dataset):
    server.script = [(400, {"error": {"message": "unsafe picture"}}, {})]
    report = caption(captioner="looker", endpoint=server.endpoint, batch_size=1).report
    assert report["captioned"] == 4
    assert report["failed"][0]["reason"] == "the server answered 400: unsafe picture"
    assert len(server.seen) == 5


def test_an_answer_without_a_text_is_named(server):
    server.script = [(200, {"choices": []}, {})]
    with pytest.raises(JobError, match="without a text"):
        connect(server.endpoint, "looker").describe(Request(RED, "p"))


def test_a_model_that_is_not_offered_is_named_with_those_that_are(server):
    with pytest.raises(ModelError, match="no model 'other'") as caught:
        connect(server.endpoint, "other")
    assert "looker" in caught.value.hint


def test_a_server_that_lists_no_models_is_believed(server):
    server.known = None
    assert connect(server.endpoint, "anything").describe(Request(RED, "p"))


def test_a_server_that_is_not_there_is_named(server, monkeypatch):
    monkeypatch.setattr(openai_api, "ATTEMPTS", 2)
    server.shutdown()
    server.server_close()
    with pytest.raises(JobError, match=f"{server.endpoint} cannot be reached"):
        connect(server.endpoint, "looker")


def test_the_key_is_in_the_header_and_nowhere_else(server, monkeypatch, caplog):
    monkeypatch.setenv("CAPTION_API_KEY", "s3cret")
    caplog.set_level("DEBUG")
    server.script = [(401, {"error": {"message": "wrong key"}}, {})]
    captioner = connect(server.endpoint, "looker")
    assert server.headers[0]["Authorization"] == "Bearer s3cret"
    with pytest.raises(ModelError) as caught:
        captioner.describe(Request(RED, "p"))
    assert "CAPTION_API_KEY" in caught.value.hint
    assert "s3cret" not in caught.value.message + caught.value.hint + caplog.text + json.dumps(server.seen)


def test_a_redirect_does_not_get_the_key(server, monkeypatch):
    monkeypatch.setenv("CAPTION_API_KEY", "s3cret")
    thief = Server()
    server.script = [(307, {}, {"Location": f"{thief.endpoint}/chat/completions"})]
    with pytest.raises(ModelError, match="307"):
        connect(server.endpoint, "looker").describe(Request(RED, "p"))
    assert thief.seen == thief.headers == []
    thief.shutdown()
    thief.server_close()


@pytest.mark.parametrize("endpoint", ["http://example.org/v1", "http://8.8.8.8/v1"])
def test_a_key_never_travels_in_the_clear(endpoint, monkeypatch):
    monkeypatch.setenv("CAPTION_API_KEY", "s3cret")
    with pytest.raises(InputError, match="in the clear"):
        connect(endpoint, "looker")
