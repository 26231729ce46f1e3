"""4-bit storage, on the CPU, where bitsandbytes computes it too."""

import bitsandbytes as bnb
import pytest
import torch

from lora_lightning.models import lora
from lora_lightning.models.base import TextEmbedding
from lora_lightning.models.lora_files import diffusers as lora_file
from lora_lightning.models.lora_files.verify import verify


@pytest.fixture
def text():
    generator = torch.Generator().manual_seed(0)
    return TextEmbedding(
        torch.randn(1, 32, 32, generator=generator).bfloat16(), torch.randn(1, 32, generator=generator).bfloat16()
    )


def test_linears_of_the_blocks_take_four_bits_and_say_nearly_the_same(flux_bf16, text):
    plain, packed = flux_bf16.load_transformer(), flux_bf16.load_transformer("nf4")
    found = {name for name, module in packed.named_modules() if isinstance(module, bnb.nn.Linear4bit)}
    wanted = {name for name, module in plain.named_modules() if type(module) is torch.nn.Linear and "_blocks." in name}
    assert found == wanted
    weight = packed.transformer_blocks[0].attn.to_q.weight
    assert (weight.dtype, weight.numel()) == (torch.uint8, 64 * 64 // 2)

    x, sigma = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0.5])
    with torch.no_grad():
        exact = flux_bf16.velocity(plain, x, sigma, text).float()
        rounded = flux_bf16.velocity(packed, x, sigma, text).float()
    error = (rounded - exact).norm() / exact.norm()
    assert 0 < error < 0.3


def test_an_adapter_learns_on_it_and_its_file_loads(flux_bf16, text, tmp_path):
    transformer = flux_bf16.load_transformer("nf4")
    lora.inject(transformer, rank=4, alpha=4.0, targets=flux_bf16.lora_targets["attention"], seed=0)
    weights = lora.trainable(transformer)
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-2)
    x, sigma = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0.5])
    losses = []
    for _ in range(6):
        with torch.autocast("cpu", torch.bfloat16):
            loss = flux_bf16.velocity(transformer, x, sigma, text).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    path = lora_file.write(tmp_path / "a.safetensors", transformer, {}, torch.bfloat16)
    assert verify(flux_bf16.pipeline(transformer), path, torch.bfloat16) < 0.01
