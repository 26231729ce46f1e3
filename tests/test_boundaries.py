import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "lightning", "pytorch_lightning", "diffusers", "transformers", "peft", "bitsandbytes")
PACKAGE = Path(__file__).parents[1] / "lora_lightning"


def modules(folder):
    paths = (PACKAGE / folder).rglob("*.py")
    return sorted(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in paths)


LIGHT = [
    "lora_lightning.__main__",
    "lora_lightning.verbs",
    "lora_lightning.check",
    "lora_lightning.doctor",
    "lora_lightning.recipe",
    *modules("datasets"),
    *[name for name in modules("runs") if not name.endswith(".callback")],
    *modules("ui"),
    *(name for folder in ("caption", "train", "generate", "publish", "models") for name in modules(folder)
      if name.endswith(".config")),
]  # fmt: skip


def test_what_the_dashboard_and_the_command_line_load_is_light():
    script = f"""
import importlib, sys
for name in {LIGHT!r}:
    importlib.import_module(name)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize("banned", ["shell=True", "os.system(", "trust_remote_code", "yaml.load(", "unsafe_allow_html"])
def test_dangerous_calls_are_absent(banned):
    sources = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "pages").glob("*.py"), PACKAGE.parent / "app.py"]
    assert [str(path) for path in sources if path.exists() and banned in path.read_text()] == []


def test_streamlit_lives_in_the_dashboard_only():
    outside = [
        path for path in PACKAGE.rglob("*.py") if "ui" not in path.parts and "import streamlit" in path.read_text()
    ]
    assert outside == []
