"""The dataset and caption pages with 10,000 pictures, walked in a real Chromium, and the memory of the dashboard.

    python -m benchmarks.studio_browser [--pictures 10000] [--output benchmarks/results]

Server time is what the page's script takes inside the dashboard (told by the server itself, see `PROBE`); the browser's
is from the click until the page stands still. Filters and page turns are made three times and the fastest is kept,
since other work on the machine can only add; the slowest stands beside. The pictures are of `benchmarks.datasets`.
"""

import argparse
import json
import os
import runpy
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
from playwright.sync_api import sync_playwright

from benchmarks.datasets import build
from lora_lightning.ui.editor import PER_PAGE
from tests.e2e.conftest import FLAGS, ROOT, Dashboard, Visitor

PROBE = """
import time, sys
from streamlit.navigation.page import StreamlitPage
run = StreamlitPage.run
def timed(self):
    started, cpu = time.perf_counter(), time.thread_time()
    try:
        run(self)
    finally:
        seconds = f"{time.perf_counter() - started:.4f} {time.thread_time() - cpu:.4f}"
        print(f"SCRIPT {seconds}", file=sys.stderr, flush=True)
StreamlitPage.run = timed
"""
"""A `sitecustomize` for the dashboard's process: it prints how long each run of a page took."""
GOALS = {"open": 1.0, "filter": 0.15, "page": 0.15}


@dataclass(frozen=True)
class Step:
    """One thing that a person does, and what it took.

    Attributes:
        server_seconds: of the page's script, by the clock; `server_cpu_seconds` of the processor, which other work on
            the machine does not change.
        browser_seconds: until the page stands still.
        memory_mib: of the server, after it.
        goal_seconds: for the server.
        slowest_seconds: of the server, where it was done more than once.
    """

    what: str
    server_seconds: float
    server_cpu_seconds: float
    browser_seconds: float
    memory_mib: int
    goal_seconds: float | None
    slowest_seconds: float | None = None


class Walk:
    """A browser on a dashboard, timing each step."""

    def __init__(self, dashboard: Dashboard, visitor: Visitor) -> None:
        self.dashboard, self.visitor = dashboard, visitor
        self.steps: list[Step] = []

    def step(self, what: str, do: Callable[[], object], seen: Callable[[], object], goal: str = "") -> None:
        """Do something, wait until it is to be seen and the page stands still, and note what it took."""
        before = self._scripts()
        started = time.perf_counter()
        do()
        seen()
        self.visitor.settled()
        taken = time.perf_counter() - started
        time.sleep(1.0)
        scripts = self._scripts()[len(before) :]
        process = psutil.Process(self.dashboard.process.pid)
        memory = sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]) // 2**20
        wall, cpu = max(scripts, default=(0.0, 0.0))
        self.steps.append(Step(what, wall, cpu, round(taken, 3), memory, GOALS.get(goal)))
        times = f"server {wall:6.3f} s (cpu {cpu:5.3f})  browser {taken:5.2f} s"
        print(f"{what:42} {times}  {memory} MiB", flush=True)

    def _scripts(self) -> list[tuple[float, float]]:
        lines = (line.split() for line in self.dashboard.log.splitlines() if line.startswith("SCRIPT "))
        return [(float(wall), float(cpu)) for _, wall, cpu in lines]


def main() -> None:
    """Build, walk, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        (folder / "home" / "datasets").mkdir(parents=True)
        build(folder / "home" / "datasets" / "many", given.pictures)
        (folder / "probe").mkdir()
        (folder / "probe" / "sitecustomize.py").write_text(PROBE)
        dashboard = Dashboard(folder / "home", folder / "elsewhere", PYTHONPATH=str(folder / "probe")).start()
        browser = playwright.chromium.launch(
            executable_path=runpy.run_path(str(ROOT / "tools" / "chromium.py"))["find"](), args=list(FLAGS)
        )
        try:
            steps = walk(
                dashboard, Visitor(browser.new_page(viewport={"width": 1280, "height": 1000}), dashboard.address)
            )
        finally:
            browser.close()
            dashboard.end()
    report(steps, given.pictures, given.output)


def walk(dashboard: Dashboard, visitor: Visitor) -> list[Step]:
    """What a person with very many pictures does."""
    page, walk = visitor.page, Walk(dashboard, visitor)

    def drawn(selector: str, count: int) -> Callable[[], object]:
        return lambda: page.wait_for_function(
            "([selector, count]) => document.querySelectorAll(selector).length >= count", arg=[selector, count]
        )

    tiles, boxes = ".ll-grid img", "textarea[aria-label$='.jpg']"
    walk.step("open the grid, first", lambda: visitor.go("datasets?dataset=many"), drawn(tiles, 60), "open")
    walk.step("open the grid, again", lambda: visitor.go("datasets?dataset=many"), drawn(tiles, 60), "open")
    for number in (2, 3, 4):
        turn = page.locator(".st-key-browse-many-page").get_by_text(str(number), exact=True)
        first = page.locator(tiles).first
        source = first.get_attribute("src")
        walk.step(
            "another page of the grid",
            turn.click,
            lambda source=source: page.wait_for_function(
                "([tiles, source]) => document.querySelector(tiles).getAttribute('src') !== source", arg=[tiles, source]
            ),
            "page",
        )
    walk.step("open the captions, first", lambda: visitor.go("captions?dataset=many"), drawn(boxes, PER_PAGE), "open")
    walk.step("open the captions, again", lambda: visitor.go("captions?dataset=many"), drawn(boxes, PER_PAGE), "open")
    visitor.page.locator(".st-key-captions-checked").get_by_text("Check").click()
    walk.step("check all captions, once", lambda: None, lambda: visitor.sees("Over 77 CLIP tokens", seconds=120))
    for query in 3 * ("tokens>120 AND NOT caption:trigger", 'word:"red car" OR name:*7.jpg', "caption:d*s*k"):
        shown = page.get_by_text("pictures. A caption is saved")
        text = shown.inner_text()
        walk.step(
            f"filter {query}",
            lambda query=query: visitor.fill("find", query),
            lambda text=text: page.wait_for_function(
                "text => !document.body.innerText.includes(text.slice(0, 16))", arg=text
            ),
            "filter",
        )
    visitor.fill("find", "")
    walk.step("back to all", lambda: None, drawn(boxes, PER_PAGE))
    for number in (2, 3, 4):
        turn = page.locator(".st-key-captions-page").get_by_text(str(number), exact=True)
        walk.step("another page of the captions", turn.click, drawn(boxes, PER_PAGE), "page")
    box = page.locator(boxes).first
    walk.step(
        "write one caption", lambda: (box.fill("A written caption."), box.press("Tab")), lambda: visitor.sees("✓ Saved")
    )
    walk.step("one by one", lambda: page.get_by_text("One by one").click(), lambda: visitor.sees("to look at"))
    assert not visitor.errors, visitor.errors
    return fastest(walk.steps)


def fastest(steps: list[Step]) -> list[Step]:
    """Of what was done several times, the fastest."""
    times: dict[str, list[Step]] = {}
    for step in steps:
        times.setdefault(step.what, []).append(step)
    ordered = [sorted(same, key=lambda step: step.server_seconds) for same in times.values()]
    return [replace(same[0], slowest_seconds=same[-1].server_seconds if len(same) > 1 else None) for same in ordered]


def report(steps: list[Step], count: int, output: Path) -> Path:
    """Write the dated result."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"studio-browser-{time.strftime('%Y-%m-%d')}.json"
    value = {
        "command": f"python -m benchmarks.studio_browser --pictures {count}",
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "steps": [asdict(step) for step in steps],
    }
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
