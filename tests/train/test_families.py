"""Every family and every kind of adapter through the whole job: cached, trained, saved, verified, drawn with."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from lora_lightning.errors import InputError, LoraFileError
from lora_lightning.models import lora
from lora_lightning.models.base import open_family
from lora_lightning.models.families.flux2 import Flux2
from lora_lightning.models.lora_files import diffusers as lora_file
from lora_lightning.runs.folder import RunFolder
from lora_lightning.train import job

CPU = torch.device("cpu")


def header_and_keys(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata(), list(file.keys())


def made(outcome):
    return Path(outcome.made["lora"])


def effect(folder, path):
    """What a file changes in each weight of a base model."""
    family = open_family(str(folder), device=CPU, dtype=torch.float32)
    pipeline = family.pipeline(family.load_transformer())
    lora_file.load(pipeline, path, "it")
    return {module: lora.delta_OI(layer, "it") for module, layer in lora.adapted(pipeline.transformer, "it")}


@pytest.mark.parametrize(
    ("model", "architecture", "prefix", "count"),
    [
        ("tiny_klein", "flux-2-klein/lora", "diffusion_model.double_blocks.", 28),
        ("tiny_flux2", "flux-2-dev/lora", "diffusion_model.double_blocks.", 28),
        ("tiny_kontext", "flux-1-dev/lora", "transformer.transformer_blocks.", 34),
    ],
)
def test_a_family_is_trained_and_its_file_loads(model, architecture, prefix, count, request, train, recipe):
    folder = request.getfixturevalue(model)
    outcome = train(recipe(f"model.base={folder}", "train.sample_every=6"))
    header, keys = header_and_keys(made(outcome))
    assert header["modelspec.architecture"] == architecture
    assert header["ss_base_model_version"] == ("flux2" if "flux-2" in architecture else "flux1")
    assert any(key.startswith(prefix) for key in keys)
    changed = effect(folder, made(outcome))
    assert len(changed) == count
    assert all(delta.norm() > 0 for delta in changed.values())
    assert Path(outcome.made["sheet"]).is_file()


def test_klein_is_drawn_without_its_text_encoder_when_all_texts_are_cached(
    train, recipe, home, tiny_klein, monkeypatch
):
    """The empty text, which its guidance needs, comes from the cache like the captions, whoever has read them."""
    wanted = (f"model.base={tiny_klein}", "train.steps=1", "train.sample_every=1")
    monkeypatch.setattr(job, "has_room", lambda *_: False)
    train(recipe(*wanted))
    assert "captions are read on the CPU" in RunFolder(home.run("short")).log_tail()
    monkeypatch.undo()
    monkeypatch.setattr(Flux2, "_encode", lambda *_: pytest.fail("the text encoder was loaded"))
    again = train(recipe(*wanted, "name=again"))
    assert Path(again.made["sheet"]).is_file()


@pytest.mark.parametrize("kind", ["dora", "lokr", "loha"])
def test_a_kind_of_adapter_is_trained_and_its_file_loads(kind, train, recipe, tiny_flux):
    outcome = train(recipe(f"lora.kind={kind}", "lora.ranks=['proj_out=2']"))
    assert lora_file.kind_in(made(outcome)) == kind
    changed = effect(tiny_flux, made(outcome))
    assert len(changed) == 34
    assert sum(delta.norm() > 0 for delta in changed.values()) == 34


def test_modules_ranks_and_a_kohya_file(train, recipe, tiny_flux):
    outcome = train(recipe("lora.modules=.*attn\\.to_[qk]", "lora.ranks=['to_k=2']", "lora.kohya_file=true"))
    tensors = lora_file.read(made(outcome)).tensors
    ranks = {key.split(".")[-3]: len(tensor) for key, tensor in tensors.items() if "lora_A" in key}
    assert ranks == {"to_q": 4, "to_k": 2}
    other = made(outcome).with_name("short-kohya.safetensors")
    assert all(key.startswith("lora_unet_") for key in header_and_keys(other)[1])
    one, two = effect(tiny_flux, made(outcome)), effect(tiny_flux, other)
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[module], two[module], atol=1e-6) for module in one)


def test_a_run_continues_from_a_finished_lora_by_its_name(train, recipe, tiny_flux):
    first = effect(tiny_flux, made(train(recipe())))
    changes = ("name=longer", "lora.init_from=short", "lora.alpha=2", "train.steps=1", "train.learning_rate=1e-9")
    second = effect(tiny_flux, made(train(recipe(*changes))))
    assert max(delta.abs().max() for delta in first.values()) > 1e-4
    assert all(torch.allclose(second[module], delta, atol=1e-6) for module, delta in first.items())


def test_what_cannot_be_continued_is_refused_before_anything_is_encoded(train, recipe, home):
    with pytest.raises(LoraFileError, match="there is no LoRA file nowhere"):
        train(recipe("lora.init_from=nowhere"))
    assert not home.cache.exists()
    train(recipe("name=small", "train.steps=1"))
    with pytest.raises(LoraFileError, match="factors of shape"):
        train(recipe("name=large", "lora.init_from=small", "lora.rank=8"))


def test_style_blocks_are_refused_where_nobody_knows_them(train, recipe, tiny_klein):
    with pytest.raises(InputError, match=r"lora.targets=style is not known for flux-2-klein"):
        train(recipe(f"model.base={tiny_klein}", "lora.targets=style"))


def test_the_training_adapter_changes_what_is_learned_and_nothing_that_is_drawn(train, recipe, tiny_schnell, tmp_path):
    """The first sample, before any step, is the bare base's; the gradient is that of the base with the adapter."""
    family = open_family(str(tiny_schnell), device=CPU, dtype=torch.float32)
    transformer = family.load_transformer()
    lora.inject(transformer, rank=2, alpha=2.0, targets=family.lora_targets["all"], seed=3)
    for weight in lora.trainable(transformer).values():
        weight.data.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
    path = lora_file.write(tmp_path / "adapter.safetensors", transformer, {}, torch.float32)

    base = (f"model.base={tiny_schnell}", "train.sample_every=6")
    without = train(recipe(*base, "name=without"))
    within = train(recipe(*base, "name=within", f"model.training_adapter={path}"))
    folder = made(within).parents[2] / "runs"
    first = [(folder / name / "samples" / "0000000-0.png").read_bytes() for name in ("without", "within")]
    assert pixels(first[0]) == pixels(first[1])
    one, two = safetensors.torch.load_file(made(without)), safetensors.torch.load_file(made(within))
    assert one.keys() == two.keys()
    assert not any(torch.equal(one[key], two[key]) for key in one if "lora_B" in key)


def pixels(data):
    import io

    from PIL import Image

    return Image.open(io.BytesIO(data)).tobytes()
