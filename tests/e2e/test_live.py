"""A run watched for a while: nothing moves and nothing fades, however long the server takes to draw it."""

import json
import threading
import time

import pytest

from lora_lightning import recipe
from lora_lightning.runs.job import reserve

pytestmark = pytest.mark.browser

MANY = 250_000
"""Rows of figures at once, which take the server longer to read than Streamlit waits before it fades what is old."""

WATCH = """seconds => new Promise(done => {
  const boxes = new Map(), parts = "[data-testid=stElementContainer], [data-testid=stMetric], svg.marks, canvas, button"
  let dimmest = 1, stale = 0
  const ended = performance.now() + 1000 * seconds
  const look = () => {
    const live = document.querySelector("[class*=st-key-live-]")
    stale += live.querySelectorAll("[data-stale=true]").length
    // But for a chart's own tools, which float above it and come one after the other.
    const laid = [...live.querySelectorAll(parts)].filter(part => !part.closest("[data-testid=stElementToolbar]"))
    laid.forEach((part, place) => {
      const { x, y, width, height } = part.getBoundingClientRect()
      const seen = boxes.get(place) ?? new Set()
      boxes.set(place, seen.add([x, y, width, height].map(Math.round).join(" ")))
      dimmest = Math.min(dimmest, Number(getComputedStyle(part).opacity))
    })
    if (performance.now() < ended) setTimeout(look, 50)
    else done({ parts: boxes.size, moved: [...boxes.values()].filter(seen => seen.size > 1).map(seen => [...seen]),
                dimmest, stale })
  }
  look()
})"""


@pytest.fixture
def at_work(workspace):
    """A run at work, whose lock this process holds and whose figures it writes; a function that writes more of them."""
    made = recipe.load("style", ["name=mine", "dataset.name=none"])
    run = reserve(workspace, "train", "mine", made.to_yaml())
    ended = threading.Event()

    def write(first: int, count: int) -> None:
        rows = (json.dumps({"step": step, "loss": 0.5}) + "\n" for step in range(first, first + count))
        with run.metrics_path.open("a") as file:
            file.writelines(rows)

    def work() -> None:
        step = 100
        while not ended.wait(0.5):
            step += 1
            write(step, 1)
            run.write_state(done=step, figures={"loss": step % 7 / 10, "steps_per_second": 2.0})

    write(1, 100)
    run.write_state(state="running", started=time.time(), phase="training", done=100, total=1000)
    assert run.lock.acquire()
    worker = threading.Thread(target=work)
    worker.start()
    yield write
    ended.set()
    worker.join()
    run.lock.release()


def test_nothing_moves_and_nothing_fades_while_a_run_is_watched(dashboard, visit, at_work):
    visitor = visit(dashboard()).go("run?id=mine").sees("Loss", role="heading")
    visitor.page.locator("[data-testid=stVegaLiteChart] svg, [data-testid=stVegaLiteChart] canvas").first.wait_for()
    visitor.page.wait_for_function("document.querySelectorAll('[data-testid=stMetric]').length == 2")
    visitor.page.wait_for_timeout(500)
    at_work(1000, MANY)
    seen = visitor.page.evaluate(WATCH, 4)
    assert seen["parts"] > 10
    assert seen["stale"] > 0, "nothing was ever old: this test has lost its teeth"
    assert seen["dimmest"] == 1
    assert seen["moved"] == []
    assert visitor.errors == []
