"""The steps of recording, with a recorder that computes the step again; the real one needs a GPU (benchmarks)."""

from contextlib import contextmanager, nullcontext

import pytest
import torch
from PIL import Image

from lora_lightning.caption.base import Request, Sampling
from lora_lightning.caption.decoder import COLUMNS, Decoder
from lora_lightning.caption.streams import Rows
from tests.caption.conftest import described


class Stream:
    def wait_stream(self, other):
        pass


@pytest.fixture
def recorder(monkeypatch):
    """Stands for CUDA's; `fault` is added to what a replay computes."""

    class Graph:
        made, replays, fault, decoder = 0, 0, 0.0, None

        def __init__(self):
            Graph.made += 1

        def replay(self):
            Graph.replays += 1
            Graph.decoder._logits_BV.copy_(Graph.decoder._forward() + Graph.fault)

    @contextmanager
    def recording(graph, **options):
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    return Graph


def recorded(captioner, graph, requests):
    decoder = graph.decoder = Decoder(captioner.model, 2, graph=False)
    decoder._wants_graph = True

    class Recorded:
        def stream(self, size):
            return Rows(decoder, size, captioner.inputs, captioner.read, captioner.ends, captioner.model.device)

    return described(Recorded(), requests, size=2)


@pytest.fixture(scope="module")
def requests():
    image = Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 30).convert("RGB")
    lengths = (9, 5, 12, 7, COLUMNS)  # the last one outgrows the cache
    return [Request(image, "Tags?", place, Sampling(1.5, 1.0, length)) for place, length in enumerate(lengths)]


def test_a_recorded_step_writes_the_same_texts_and_is_recorded_anew_when_the_cache_grows(captioner, recorder, requests):
    assert recorded(captioner, recorder, requests) == described(captioner, requests, size=2)
    assert recorder.made == 2
    assert recorder.replays > 20


def test_a_recording_that_computes_something_else_is_not_used(captioner, recorder, requests, caplog):
    recorder.fault = 0.5
    assert recorded(captioner, recorder, requests[:2]) == described(captioner, requests[:2], size=2)
    assert (recorder.made, recorder.replays) == (1, 1)
    assert "cannot be recorded" in caplog.text
