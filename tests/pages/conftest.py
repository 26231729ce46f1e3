"""A workspace in any state, and its pages under AppTest."""

import json
import time
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from streamlit.testing.v1 import AppTest

from lora_lightning import recipe
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.runs import gpu
from lora_lightning.runs.files import write_json
from lora_lightning.runs.job import reserve
from lora_lightning.ui.cards import PAGES

NAVIGATION = PAGES.parent / "lora_lightning" / "ui" / "navigation.py"


@pytest.fixture(autouse=True)
def _home(workspace, monkeypatch):
    monkeypatch.setenv("LORA_LIGHTNING_HOME", str(workspace.home))


@pytest.fixture
def open_page():
    """Open a page as a browser would: the navigation first, then the page with its query."""

    def opened(name: str, **query: str | list[str]) -> AppTest:
        app = AppTest.from_file(NAVIGATION, default_timeout=30).run()
        app.query_params.update(query)
        app.switch_page(str(PAGES / f"{name}.py")).run()
        assert not app.exception, app.exception[0].message
        return app

    return opened


@pytest.fixture
def dataset(workspace, photos) -> Dataset:
    """Three photographs, the first with a caption by a captioner, the second with one by a person."""
    import_sources(workspace, "photographs", photos[:3])
    made = Dataset.open(workspace.dataset("photographs"))
    first, second, _ = made.pictures()
    made.write_caption(first.id, "an astronaut in orange", author="captioner")
    made.write_caption(second.id, "a wall of bricks", author="human")
    return made


@pytest.fixture
def make_run(workspace):
    """A run folder in a state, written as the work and its frame write it; a live one holds its lock."""
    held = []

    def made(name: str, state: str, *, live: bool = False, verb: str = "train", **stored):
        made_from = recipe.load("style", [f"name={name}", "dataset.name=photographs"])
        run = reserve(workspace, verb, name, made_from.to_yaml())
        run.write_state(state=state, launched=0.0, started=time.time(), **stored)
        if live:
            assert run.lock.acquire()
            held.append(run)
        return run

    yield made
    for run in held:
        run.lock.release()


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    """What the driver of a machine with two GPUs says; the locks of their devices lie in the test's folder."""
    cards = [
        gpu.Gpu(0, "Small", 12 << 10, 0, 0, 0, 0.0, (8, 9)),
        gpu.Gpu(1, "Large", 80 << 10, 32_256, 97, 71, 640.0, (9, 0)),
    ]
    monkeypatch.setattr(gpu.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(gpu.pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(gpu.pynvml, "nvmlDeviceGetCount", lambda: len(cards))
    monkeypatch.setattr(gpu, "_read", cards.__getitem__)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def finish(workspace):
    """Give a run its LoRA, as a completed training leaves it; only the bytes of the weights are missing."""

    def finished(run, name: str) -> Path:
        file = workspace.lora(name)
        (file.parent / "samples").mkdir(parents=True)
        file.write_bytes(b"weights")
        Image.new("RGB", (64, 64), "purple").save(file.parent / "samples" / "step-000010-0.png")
        (file.parent / "README.md").write_text(f"---\nlicense: other\n---\n# {name}\n\nTrigger: MYSTYLE\n")
        (file.parent / "recipe.yaml").write_text(run.recipe_path.read_text())
        write_json(run.path / "result.json", {"made": {"lora": str(file)}, "report": {}, "seconds": 3})
        return file

    return finished


@pytest.fixture
def write_losses():
    def written(run, values) -> None:
        rows = (json.dumps({"step": step, "loss": value}) for step, value in enumerate(values, start=1))
        run.metrics_path.write_text("\n".join(rows) + "\n")

    return written


@pytest.fixture
def draw_samples():
    """Pictures as a training draws them: STEP-PLACE.png with their prompts."""

    def drawn(run, *, steps, prompts) -> None:
        run.samples.mkdir(exist_ok=True)
        for step in steps:
            for place, prompt in enumerate(prompts):
                facts = PngInfo()
                for name, value in {"prompt": prompt, "seed": str(42 + place), "step": str(step)}.items():
                    facts.add_itxt(name, value)
                Image.new("RGB", (64, 64), (step % 256, 90, 160)).save(
                    run.samples / f"{step:07d}-{place}.png", pnginfo=facts
                )

    return drawn


@pytest.fixture
def texts():
    """Everything that a page says, in one string."""

    def said(app: AppTest) -> str:
        parts = [*app.title, *app.markdown, *app.error, *app.warning, *app.info, *app.success, *app.header, *app.code]
        titled = [f"{getattr(part, 'title', '')} {part.value}" for part in parts]
        return "\n".join([*titled, *(button.label for button in app.button), *(each.value for each in app.metric)])

    return said
