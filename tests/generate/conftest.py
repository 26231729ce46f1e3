import pytest
import torch

from lora_lightning.models import lora
from lora_lightning.models.base import open_family
from lora_lightning.models.lora_files import diffusers as lora_file

CPU = torch.device("cpu")


@pytest.fixture
def make_lora(workspace, tiny_flux):
    """A finished LoRA with random weights, written as training writes it."""

    def make(name, seed=1, rank=4, kind="lora"):
        family = open_family(str(tiny_flux), device=CPU, dtype=torch.float32)
        transformer = family.load_transformer()
        lora.inject(transformer, rank=rank, alpha=rank, targets=family.lora_targets["all"], seed=seed, kind=kind)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in lora.trainable(transformer).values():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        return lora_file.write(workspace.lora(name), transformer, {"ss_output_name": name}, torch.float32)

    return make
