"""Tiny models are fastest, and their results repeat best, on one thread."""

import pytest
import torch

from lora_lightning.models.base import open_family

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def flux(tiny_flux):
    return open_family(str(tiny_flux), device=CPU, dtype=torch.float32)


@pytest.fixture
def schnell(tiny_schnell):
    return open_family(str(tiny_schnell), device=CPU, dtype=torch.float32)


@pytest.fixture
def kontext(tiny_kontext):
    return open_family(str(tiny_kontext), device=CPU, dtype=torch.float32)


@pytest.fixture
def klein(tiny_klein):
    return open_family(str(tiny_klein), device=CPU, dtype=torch.float32)


@pytest.fixture
def flux2(tiny_flux2):
    return open_family(str(tiny_flux2), device=CPU, dtype=torch.float32)


@pytest.fixture
def flux_bf16(tiny_flux):
    return open_family(str(tiny_flux), device=CPU, dtype=torch.bfloat16)
