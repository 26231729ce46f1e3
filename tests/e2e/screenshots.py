"""Pictures of the dashboard: `python -m tests.e2e.screenshots docs/images` draws those of the guide and the README.

The state is real: the drawings that ship with the package, captioned, two LoRAs trained on flux-mini, one of them
evaluated and drawn with, a run at work and one in line. With `--every FOLDER` also each page empty and at work, in both
themes, wide and on a phone, to be looked at by a person.
"""

import argparse
import os
import runpy
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from lora_lightning import recipe
from lora_lightning.datasets.importing import import_sources
from lora_lightning.demo.sample import demo_recipe, sample
from lora_lightning.recipe import Recipe
from lora_lightning.runs import launch
from lora_lightning.runs.folder import RunFolder
from lora_lightning.ui import drafts
from lora_lightning.ui.menu import SECTIONS
from lora_lightning.workspace import Workspace
from tests.e2e.conftest import FLAGS, ROOT, Dashboard, Visitor

SIZES = {"": (1280, 900), "-phone": (375, 812)}
TALL = {"": (1280, 1700), "-phone": (375, 2400)}
"""To be looked at by a person, who wants to see the lower end as well."""

SCHEMES = {"": "light", "-dark": "dark"}
EMPTY = {name: "" if name == "home" else name for entries in SECTIONS.values() for name, *_ in entries}
GUIDE = {
    "home": "",
    "datasets": "datasets",
    "captions": "captions",
    "train": "train",
    "run": "run?id=inkmoji&tab=samples",
    "runs": "runs",
    "compare": "runs?tab=compare&compare=inkmoji&compare=inkmoji-gentle",
    "evaluate": "evaluate?lora=inkmoji",
    "generate": "generate",
    "publish": "publish?lora=inkmoji",
}
"""Names of the guide's pictures, and the pages that they show."""

BUSY = GUIDE | {
    "run-working": "run?id=night",
    "run-finished": "run?id=inkmoji",
    "run-failed": "run?id=broken",
    "run-waiting": "run?id=after-midnight",
    "checkpoints": "run?id=inkmoji&tab=checkpoints",
    "curves": "run?id=inkmoji&tab=curves",
    "log": "run?id=inkmoji&tab=log",
    "files": "run?id=inkmoji&tab=files",
    "trash": "runs?tab=trash",
    "checked": "datasets?tab=Check pictures",
    "one-by-one": "captions?layout=One by one",
    "train-advanced": "train?view=Advanced",
    "tensorboard": "tensorboard",
    "settings": "settings",
}
DRAWN = """!document.querySelector("[data-testid=stSkeleton]") &&
  [...document.images].every(image => image.complete || image.loading == "lazy")"""
"""Nothing is a grey place any more that something else will stand in."""

COLOURS = 256
"""Of a picture in the documents, which keeps it small."""


def main() -> None:
    """Fill a workspace, then photograph it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--every", type=Path, help="a folder for all pages, states, themes and sizes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = runpy.run_path(str(ROOT / "tools" / "chromium.py"))["find"]()
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        workspace = Workspace.find(Path(folder) / "lora-lightning" / "workspace")
        os.environ["HOME"] = folder  # so that paths are shown as people have them: ~/lora-lightning/workspace
        dashboard = Dashboard(workspace.home, Path(folder) / "elsewhere").start()
        working: list[RunFolder] = []
        try:
            if given.every:
                shoot(browser, dashboard, EMPTY, given.every / "empty", sizes=TALL)
            working = fill(workspace)
            shoot(browser, dashboard, GUIDE, given.output, sizes={"": SIZES[""]}, schemes={"": "light"})
            if given.every:
                shoot(browser, dashboard, BUSY, given.every, sizes=TALL)
        finally:
            for run in working:
                launch.force_stop(run)
            dashboard.end()
            browser.close()
    for name in GUIDE:
        shrink(given.output / f"{name}.png")


def fill(workspace: Workspace) -> list[RunFolder]:
    """A captioned dataset, finished LoRAs and what was made with one, a failed run; returns the one at work and the one
    that waits."""
    chosen = sample()
    import_sources(workspace, chosen.name, [chosen.archive])
    base = demo_recipe(chosen, workspace)
    own = changed(base, train={"sample_every": 50, "checkpoint_every": 50})
    gentle = changed(
        base, name=f"{base.name}-gentle", train={"learning_rate": 3e-4, "sample_every": 100}, lora={"rank": 8}
    )
    for verb, made in (("caption", own), ("train", own), ("train", gentle), ("evaluate", own), ("generate", own)):
        run = launch.start(workspace, verb, made.name, made.to_yaml())
        wait(run, lambda run=run: not run.status().live)
    broken = changed(base, name="broken", model={"base": "/models/moved-away"})
    failed = launch.start(workspace, "train", "broken", broken.to_yaml())
    wait(failed, lambda: not failed.status().live, may_fail=True)
    drafts.save(workspace, "train", changed(base, name="my-style", train={"steps": 600}).model_dump(mode="json"))
    drafts.save(workspace, "generate", base.model_dump(mode="json"))
    night = changed(base, name="night", train={"steps": 20_000, "sample_every": 0})
    working = launch.start(workspace, "train", "night", night.to_yaml())
    wait(working, lambda: working.status().done > 20)
    waits = launch.start(workspace, "train", "after-midnight", changed(night, name="after-midnight").to_yaml())
    wait(waits, lambda: waits.status().queue_order > 0)
    return [working, waits]


def changed(made: Recipe, **changes: object) -> Recipe:
    """A recipe with some sections changed."""
    values = made.model_dump(mode="json")
    for section, change in changes.items():
        values[section] = values[section] | change if isinstance(change, dict) else change
    return recipe.parse(values)


def wait(run: RunFolder, reached, *, may_fail: bool = False) -> None:
    """Until a run has come so far; it ends this program if the run fails."""
    while not reached():
        time.sleep(0.2)
    if run.status().state == "failed" and not may_fail:
        sys.exit(f"{run.name} failed: {run.status().message}")


def shoot(browser, dashboard: Dashboard, pages: dict[str, str], output: Path, *, sizes=SIZES, schemes=SCHEMES) -> None:
    """Each page as NAME.png, NAME-dark.png, NAME-phone.png and NAME-phone-dark.png."""
    output.mkdir(parents=True, exist_ok=True)
    for size, (width, height) in sizes.items():
        for theme, scheme in schemes.items():
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            visitor = Visitor(context.new_page(), dashboard.address)
            for name, path in pages.items():
                visitor.go(path).page.wait_for_function(DRAWN)
                visitor.page.wait_for_timeout(4000 if name == "tensorboard" else 1000)  # charts move into place
                visitor.page.screenshot(path=str(output / f"{name}{size}{theme}.png"))
            context.close()


def shrink(path: Path) -> None:
    """The picture in fewer colours."""
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(COLOURS)
    small.save(path, optimize=True)


if __name__ == "__main__":
    main()
