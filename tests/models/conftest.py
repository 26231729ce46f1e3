"""Tiny models are fastest, and their results repeat best, on one thread."""

import pytest
import torch

from lora_lightning.models.base import open_family


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def flux(tiny_flux):
    return open_family(str(tiny_flux), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def schnell(tiny_schnell):
    return open_family(str(tiny_schnell), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def flux_bf16(tiny_flux):
    return open_family(str(tiny_flux), device=torch.device("cpu"), dtype=torch.bfloat16)
