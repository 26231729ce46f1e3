"""Beginning from a LoRA file, or beside a frozen one."""

import numpy as np
import pytest
import torch

from lora_lightning.errors import LoraFileError
from lora_lightning.models import lora
from lora_lightning.models.lora_files import diffusers as lora_file
from lora_lightning.models.lora_files import kohya
from lora_lightning.models.lora_files.verify import SAVED, verify
from lora_lightning.models.sampling import draw
from lora_lightning.models.start import assist, continue_from
from tests.models.adapters import KINDS, SHOT, deltas, trained


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_from_a_file_whatever_scale_it_had(flux, tmp_path, kind):
    old = trained(flux, kind)
    path = lora_file.write(tmp_path / "a.safetensors", old, {}, torch.float32)
    new = flux.load_transformer()
    lora.inject(new, rank=4, alpha=1.0, targets=flux.lora_targets["all"], seed=9, kind=kind)
    before = {name: id(weight) for name, weight in lora.trainable(new).items()}
    continue_from(flux.pipeline(new), path)
    wanted, found = deltas(old), deltas(new)
    for module, delta in wanted.items():
        assert torch.allclose(found[module], delta, atol=1e-5), module
    assert {name: id(weight) for name, weight in lora.trainable(new).items()} == before
    assert not list(lora.adapted(new, "continued"))
    assert {weight.dtype for weight in lora.trainable(new).values()} == {torch.float32}


def test_a_kohya_file_can_be_continued_too(flux, tmp_path):
    old = trained(flux)
    path = tmp_path / "a.safetensors"
    lora_file.write(path, old, {}, torch.float32, kohya.tensors(old, flux.layout))
    new = flux.load_transformer()
    lora.inject(new, rank=4, alpha=4.0, targets=flux.lora_targets["all"], seed=9)
    continue_from(flux.pipeline(new), path)
    assert all(torch.allclose(deltas(new)[module], delta, atol=1e-5) for module, delta in deltas(old).items())


@pytest.mark.parametrize(
    ("changes", "said", "hint"),
    [
        ({"rank": 8}, r"factors of shape .*lora_A.*4.* in .*a.safetensors, and .*8", "lora.rank"),
        ({"targets": "attention"}, "adapts 34 linears, the recipe 22; .* only in the file", "lora.targets"),
        ({"kind": "dora"}, "holds a lora, but a dora is to be trained", "lora.kind=lora"),
        ({"kind": "lokr"}, "holds a lora, but a lokr is to be trained", "lora.kind=lora"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_nothing_is_left_of_it(flux, tmp_path, changes, said, hint):
    path = lora_file.write(tmp_path / "a.safetensors", trained(flux), {}, torch.float32)
    new = trained(flux, **changes)
    with pytest.raises(LoraFileError, match=said) as caught:
        continue_from(flux.pipeline(new), path)
    assert hint in caught.value.hint
    assert not list(lora.adapted(new, "continued"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_training_adapter_acts_in_training_and_is_off_while_drawing(schnell, tmp_path, kind):
    other = trained(schnell, seed=5, targets="modulation")
    path = lora_file.write(tmp_path / "adapter.safetensors", other, {}, torch.float32)
    text = schnell.encode_text([SHOT.prompt])
    transformer = trained(schnell, kind)
    pipeline = schnell.pipeline(transformer)
    before, learned = np.asarray(draw(pipeline, SHOT, text)), set(map(id, lora.trainable(transformer).values()))
    assist(pipeline, str(path))
    assert set(map(id, lora.trainable(transformer).values())) == learned

    module = "transformer_blocks.0.attn.to_q"
    linear = schnell.load_transformer().get_submodule(module)
    x = torch.randn(5, linear.in_features)
    weight = linear.weight + deltas(transformer)[module] + deltas(other)[module]
    with torch.no_grad():
        asked = transformer.get_submodule(module)(x)
        assert torch.allclose(asked, torch.nn.functional.linear(x, weight, linear.bias), atol=1e-4)
        assert np.array_equal(np.asarray(draw(pipeline, SHOT, text)), before)
        assert torch.equal(transformer.get_submodule(module)(x), asked)
    written = lora_file.write(tmp_path / "a.safetensors", transformer, {}, torch.float32)
    assert verify(pipeline, written, torch.float32) < 1e-5
    assert {module for module, _ in lora.adapted(transformer, SAVED)} == set(deltas(transformer))
    assert len(list(lora.adapted(transformer, lora.ASSISTANT))) == 40
