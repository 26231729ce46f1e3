"""What several areas share: a workspace, tiny models of the real classes, real photographs."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("busy", deadline=None)  # a machine with other work makes any example slow
settings.load_profile("busy")

ROOT = Path(__file__).parents[1]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the package does, but before any test imports torch
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # the processes share the cores; so do those that they start
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["PYTHONPATH"] = str(ROOT)  # for the processes that tests start

PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png",
    "grass.png", "gravel.png", "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip


@pytest.fixture
def workspace(tmp_path):
    from lora_lightning.workspace import Workspace

    return Workspace.find(tmp_path / "workspace")


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [folder / name for name in PHOTOGRAPHS]


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory) -> Path:
    from lora_lightning.demo.tiny import build_flux

    return build_flux(tmp_path_factory.mktemp("models") / "tiny-flux")


@pytest.fixture(scope="session")
def tiny_schnell(tmp_path_factory) -> Path:
    from lora_lightning.demo.tiny import build_flux

    return build_flux(tmp_path_factory.mktemp("models") / "tiny-schnell", guidance_embeds=False)


@pytest.fixture(scope="session")
def tiny_kontext(tmp_path_factory) -> Path:
    from lora_lightning.demo.tiny import build_flux

    return build_flux(tmp_path_factory.mktemp("models") / "tiny-kontext", kontext=True)


@pytest.fixture(scope="session")
def tiny_klein(tmp_path_factory) -> Path:
    from lora_lightning.demo.tiny_flux2 import build_klein

    return build_klein(tmp_path_factory.mktemp("models") / "tiny-klein")


@pytest.fixture(scope="session")
def tiny_flux2(tmp_path_factory) -> Path:
    from lora_lightning.demo.tiny_flux2 import build_flux2

    return build_flux2(tmp_path_factory.mktemp("models") / "tiny-flux2")


@pytest.fixture(scope="session")
def tiny_captioner(tmp_path_factory) -> Path:
    from lora_lightning.demo.tiny import build_captioner

    return build_captioner(tmp_path_factory.mktemp("models") / "tiny-captioner")
