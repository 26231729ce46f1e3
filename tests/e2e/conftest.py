"""The dashboard as a person meets it: its own server process, and a real Chromium."""

import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Locator, Page, sync_playwright

from lora_lightning.runs import launch
from lora_lightning.runs.folder import runs
from tests.publish.hub_server import serving

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PROBE = re.compile(r"/[a-z]+/_stcore/(health|host-config)")
"""After a deep link Streamlit's own page asks for these below the page's path first, then where they are."""


COUNT_CLICKS = """addEventListener("click", (event) => {
  if (event.isTrusted) sessionStorage.setItem("clicks", 1 + Number(sessionStorage.getItem("clicks")))
}, true)"""


class Dashboard:
    """`streamlit run app.py` in a process of its own, over one workspace."""

    def __init__(self, home: Path, folder: Path, **environment: str) -> None:
        self.home, self.folder, self.environment = home, folder, environment
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self) -> "Dashboard":
        command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py"), "--server.headless", "true"]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "streamlit.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--server.port", str(self.port)],
                cwd=self.folder,
                env=os.environ | {"LORA_LIGHTNING_HOME": str(self.home), "OMP_NUM_THREADS": "1"} | self.environment,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urlopen(f"{self.address}/_stcore/health"):
                    return self
            except URLError:
                time.sleep(0.1)
        raise AssertionError(f"the dashboard did not start: {self.log}")

    @property
    def log(self) -> str:
        return (self.folder / "streamlit.log").read_text()

    def end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(timeout=20)


class Visitor:
    """A page of the browser that notes what should not happen: errors, and requests to anywhere else."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.errors: list[str] = []
        self.strangers: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._request)
        page.add_init_script(COUNT_CLICKS)

    @property
    def clicks(self) -> int:
        """How often a person would have clicked by now."""
        return int(self.page.evaluate("sessionStorage.getItem('clicks')") or 0)

    def go(self, path: str) -> "Visitor":
        self.page.goto(f"{self.address}/{path}")
        return self.settled()

    def settled(self) -> "Visitor":
        self.page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for(timeout=60_000)
        return self

    def menu(self, name: str) -> "Visitor":
        """Click a page in the sidebar."""
        self.page.get_by_test_id("stSidebarNav").get_by_role("link", name=name, exact=True).click()
        self.sees(name, role="heading")
        return self.settled()

    def click(self, name: str | re.Pattern[str]) -> "Visitor":
        self.page.get_by_role("button", name=name).first.click()
        return self

    def press(self, key: str) -> "Visitor":
        """Click the button of a key."""
        self._keyed(key).get_by_role("button").click()
        return self

    def fill(self, key: str, text: str) -> "Visitor":
        """Type into the widget of a key and leave it."""
        box = self._keyed(key).locator("input, textarea").first
        box.fill(text)
        box.press("Tab")
        return self.settled()

    def sees(self, text: str | re.Pattern[str], *, role: str = "", seconds: float = 60) -> "Visitor":
        found = self.page.get_by_role(role, name=text) if role else self.page.get_by_text(text)
        found.first.wait_for(timeout=seconds * 1000)
        return self

    def _keyed(self, key: str) -> Locator:
        return self.page.locator(f".st-key-{re.sub('[^a-zA-Z0-9_-]', '-', key)}")

    def _console(self, message) -> None:
        if message.type == "error" and not PROBE.search(message.location.get("url", "")):
            self.errors.append(f"{message.text} {message.location.get('url')}")

    def _request(self, request) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.strangers.append(request.url)


@pytest.fixture(scope="session")
def browser():
    tool = runpy.run_path(str(ROOT / "tools" / "chromium.py"))
    path = tool["find"]()
    if path is None:
        pytest.fail(tool["FIX"])
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def hub(tmp_path):
    """A Hub of our own on this machine."""
    with serving(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def dashboard(workspace, tmp_path):
    """Start a dashboard over the test's workspace; it and its jobs end with the test."""
    started: list[Dashboard] = []

    def start(**environment: str) -> Dashboard:
        started.append(Dashboard(workspace.home, tmp_path / "elsewhere", **environment).start())
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.end()
    for run in runs(workspace):
        if run.status().live:
            launch.force_stop(run)


@pytest.fixture
def visit(browser, tmp_path):
    """Open a window on a dashboard; what it showed at the end lies in the test's folder."""
    contexts = []

    def opened(dashboard: Dashboard, *, width: int = 1280, height: int = 900, scheme: str = "light") -> Visitor:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme))
        return Visitor(contexts[-1].new_page(), dashboard.address)

    yield opened
    for number, context in enumerate(contexts):
        context.pages[0].screenshot(path=str(tmp_path / f"last-{number}.png"))
        context.close()
