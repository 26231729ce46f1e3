"""Pictures of every page for the README and the guide: `python -m tests.e2e.screenshots docs/images`.

Each page, empty and at work, in both themes, wide and on a phone. The state is real: photographs imported and
captioned, a LoRA trained by a small random model, one run at work; the weights are random, so samples are noise.
"""

import argparse
import runpy
import sys
import tempfile
import time
from pathlib import Path

import skimage
from playwright.sync_api import sync_playwright

from lora_lightning import recipe
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.demo.tiny import build_flux
from lora_lightning.runs import launch
from lora_lightning.runs.folder import RunFolder
from lora_lightning.workspace import Workspace
from tests.conftest import PHOTOGRAPHS
from tests.e2e.conftest import FLAGS, ROOT, Dashboard, Visitor

SIZES = {"": (1280, 900), "-phone": (375, 812)}
SCHEMES = {"": "light", "-dark": "dark"}
EMPTY = {"home": "", "datasets": "datasets", "train": "train", "runs": "runs"}
BUSY = {name: name for name in ("datasets", "captions", "train", "runs", "tensorboard", "generate", "evaluate")} | {
    "home": "",
    "run": "run?id=fox-style",
    "run-finished": "run?id=my-style",
    "publish": "publish",
    "settings": "settings",
}
"""Names of pictures, and the pages that they show."""


def main() -> None:
    """Fill a workspace, then photograph it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = runpy.run_path(str(ROOT / "tools" / "chromium.py"))["find"]()
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        workspace = Workspace.find(Path(folder) / "workspace")
        dashboard = Dashboard(workspace.home, Path(folder) / "elsewhere").start()
        try:
            shoot(browser, dashboard, EMPTY, output / "empty")
            working = fill(workspace, Path(folder))
            shoot(browser, dashboard, BUSY, output)
            launch.force_stop(working)
        finally:
            dashboard.end()
            browser.close()


def fill(workspace: Workspace, folder: Path) -> RunFolder:
    """A captioned dataset, a finished LoRA, and a run at work, which is returned."""
    pictures = [Path(skimage.__file__).parent / "data" / name for name in PHOTOGRAPHS]
    import_sources(workspace, "photographs", pictures)
    dataset = Dataset.open(workspace.dataset("photographs"))
    for picture in dataset.pictures()[:11]:
        subject = Path(picture.name).stem.replace("_", " ")
        dataset.write_caption(picture.id, f"{subject}, a photograph in natural light, MYSTYLE", author="human")
    base = build_flux(folder / "tiny-flux")
    done = launch.start(workspace, "train", "my-style", small(base, "my-style", 300))
    wait(done, lambda: not done.status().live)
    working = launch.start(workspace, "train", "fox-style", small(base, "fox-style", 5_000))
    wait(working, lambda: working.status().done > 150)
    return working


def small(base: Path, name: str, steps: int) -> str:
    """A recipe that two cores can follow."""
    values = recipe.read("style") | {
        "name": name,
        "model": {"base": str(base)},
        "dataset": {"name": "photographs", "resolutions": [64]},
        "train": {"steps": steps, "learning_rate": 4e-4, "sample_every": 100, "checkpoint_every": 100},
    }
    values["sample"] = dict(values["sample"]) | {"steps": 4, "width": 128, "height": 128}
    return recipe.parse(values).to_yaml()


def wait(run: RunFolder, reached) -> None:
    """Until a run has come so far; it ends this program if the run fails."""

    while not reached():
        time.sleep(0.2)
    if run.status().state == "failed":
        sys.exit(f"{run.name} failed: {run.status().message}")


def shoot(browser, dashboard: Dashboard, pages: dict[str, str], output: Path) -> None:
    """Each page as NAME.png, NAME-dark.png, NAME-phone.png and NAME-phone-dark.png."""
    output.mkdir(parents=True, exist_ok=True)
    for size, (width, height) in SIZES.items():
        for theme, scheme in SCHEMES.items():
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            visitor = Visitor(context.new_page(), dashboard.address)
            for name, path in pages.items():
                visitor.go(path)
                visitor.page.wait_for_timeout(4000 if name == "tensorboard" else 1200)
                visitor.page.screenshot(path=str(output / f"{name}{size}{theme}.png"))
            context.close()


if __name__ == "__main__":
    main()
