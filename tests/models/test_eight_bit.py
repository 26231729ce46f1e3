"""Bases in 8 bit: how far rounding goes, and that an adapter learns on them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lightning.models import lora
from lora_lightning.models.base import TextEmbedding
from lora_lightning.models.lora_files import diffusers as lora_file
from lora_lightning.models.lora_files.verify import verify
from lora_lightning.models.quantize._rows import RowScaled, rows, widened
from lora_lightning.models.quantize.fp8 import Fp8Linear
from lora_lightning.models.quantize.int8 import Int8Linear


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(-20, 20))
def test_each_row_is_rounded_to_its_own_scale(seed, exponent):
    """Half a step of 1 / 127 of the largest for int8; for e4m3 half of 2^-3 of a value, or of the smallest step."""
    x = torch.randn(6, 32, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    x[1] = 0
    largest = x.abs().amax(1, keepdim=True)
    for narrow, bound in ((torch.int8, largest / 254), (torch.float8_e4m3fn, x.abs() / 16 + largest / 448 / 1024)):
        narrowed, scale = rows(x, narrow)
        assert (narrowed.dtype, scale.shape) == (narrow, (6, 1))
        assert ((widened(narrowed, scale, torch.float32) - x).abs() <= bound * 1.001 + 1e-30).all()


@pytest.mark.parametrize(("quantize", "kind", "bound"), [("int8", Int8Linear, 0.02), ("fp8", Fp8Linear, 0.08)])
def test_the_linears_of_the_blocks_take_eight_bits_and_an_adapter_learns(flux, quantize, kind, bound, tmp_path):
    plain, packed = flux.load_transformer(), flux.load_transformer(quantize)
    linears = {name: module for name, module in packed.named_modules() if isinstance(module, RowScaled)}
    wanted = {name for name, module in plain.named_modules() if type(module) is torch.nn.Linear and "_blocks." in name}
    assert set(linears) == wanted
    assert {type(module) for name, module in linears.items() if "norm" not in name} == {kind}
    assert {type(module) for name, module in linears.items() if "norm" in name} == {Int8Linear}
    assert {module.weight.element_size() for module in linears.values()} == {1}

    generator = torch.Generator().manual_seed(0)
    x, sigma = torch.randn(1, 16, 8, 8, generator=generator), torch.tensor([0.5])
    text = TextEmbedding(torch.randn(1, 32, 32, generator=generator), torch.randn(1, 32, generator=generator))
    with torch.no_grad():
        exact, rounded = (flux.velocity(model, x, sigma, text) for model in (plain, packed))
    assert 0 < (rounded - exact).norm() / exact.norm() < bound

    lora.inject(packed, rank=4, alpha=4.0, targets=flux.lora_targets["all"], seed=0)
    optimizer = torch.optim.AdamW(lora.trainable(packed).values(), lr=1e-2)
    losses = []
    for _ in range(6):
        loss = flux.velocity(packed, x, sigma, text).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    path = lora_file.write(tmp_path / "a.safetensors", packed, {}, torch.float32)
    assert verify(flux.pipeline(packed), path, torch.float32) < 1e-5
