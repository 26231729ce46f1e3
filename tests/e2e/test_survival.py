"""The dashboard may die; the work does not, and the next dashboard shows it as it is."""

import re
import signal

import pytest

from lora_lightning import recipe
from lora_lightning.datasets.importing import import_sources
from lora_lightning.runs import launch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def test_training_goes_on_when_streamlit_is_killed_and_is_shown_live_again(
    dashboard, visit, workspace, photos, tiny_flux
):
    import_sources(workspace, "photographs", photos[:4])
    values = {
        "name": "my-style",
        "trigger": "MYSTYLE",
        "model": {"base": str(tiny_flux)},
        "dataset": {"name": "photographs", "resolutions": [64]},
        "train": {"steps": 1_000_000, "sample_every": 0},
    }
    server = dashboard()
    visitor = visit(server).go("runs")
    run = launch.start(workspace, "train", "my-style", recipe.parse(values).to_yaml())
    try:
        visitor.go("run?id=my-style").sees(re.compile("Training [0-9,]+ of 1,000,000"), seconds=180)
        server.end(signal.SIGKILL)
        before = run.status()
        server.start()
        visitor.go("run?id=my-style").sees("Running")
        visitor.page.wait_for_timeout(2000)
        after = run.status()
        assert after.live
        assert after.done > before.done
        shown = visitor.page.get_by_text(re.compile("Training [0-9,]+ of 1,000,000")).inner_text()
        assert int(re.sub("[^0-9]", "", shown.split(" of ")[0])) > before.done
        visitor.press("run.stop").sees("Stopped", seconds=120)
    finally:
        launch.force_stop(run)
