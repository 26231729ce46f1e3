"""The dashboard's process never loads what only jobs need."""

import os
import subprocess
import sys

PROBE = """
import gc, sys
from streamlit.testing.v1 import AppTest
from lora_lightning.ui import warm
from lora_lightning.ui.cards import PAGES
import app
warm.load()
assert gc.get_freeze_count() > 50_000, "the collector would walk over the modules at each click"
test = AppTest.from_file(PAGES.parent / 'lora_lightning/ui/navigation.py', default_timeout=30).run()
pages = sorted(PAGES.glob("*.py"))
for page in pages:
    test.query_params["id"] = "my-style"
    test.switch_page(str(page)).run()
    assert not test.exception, (page, test.exception)
heavy = {"torch", "lightning", "diffusers", "transformers", "peft", "accelerate", "tensorflow"} & set(sys.modules)
print(len(pages), sorted(heavy))
"""


def test_no_page_loads_torch(workspace, dataset, make_run, finish):
    finish(make_run("my-style", "completed"), "my-style")
    environment = os.environ | {"LORA_LIGHTNING_HOME": str(workspace.home)}
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split("\n")[-2] == "11 []"
