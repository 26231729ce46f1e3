import subprocess
import sys

import pytest

from lora_lightning import plugins
from lora_lightning.errors import InputError


def test_names_come_from_the_folder_without_an_import():
    script = """
import sys
from lora_lightning import plugins
print(plugins.names("datasets/formats"), "lora_lightning.datasets" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "'seed'" in done.stdout
    assert done.stdout.strip().endswith("False")


def test_a_plugin_that_is_not_there_names_those_that_are():
    with pytest.raises(InputError) as caught:
        plugins.load("datasets/formats", "sede")
    assert "'sede'" in caught.value.message
    assert "seed" in caught.value.hint
