"""LoRA files of every kind: what ComfyUI and diffusers make of them, by their own formulas, is what was trained."""

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import Flux2KleinPipeline, FluxPipeline, FluxTransformer2DModel

from lora_lightning.errors import InputError, LoraFileError
from lora_lightning.models import lora
from lora_lightning.models.lora_files import bfl, kohya
from lora_lightning.models.lora_files import diffusers as lora_file
from lora_lightning.models.lora_files.verify import verify
from lora_lightning.models.sampling import draw
from lora_lightning.models.start import targets_of
from tests.models.adapters import KINDS, SHOT, deltas, trained


def in_comfyui(file, module, base):
    """The weight that ComfyUI computes at strength 1 (comfy/weight_adapter/{lora,lokr,loha,base}.py)."""

    def of(kind):
        return file.get(f"transformer.{module}.{kind}")

    assert of("alpha") is None  # so every reader multiplies by 1
    if of("lora_A.weight") is not None:
        delta = of("lora_B.weight") @ of("lora_A.weight")
    elif of("hada_w1_a") is not None:
        delta = (of("hada_w1_a") @ of("hada_w1_b")) * (of("hada_w2_a") @ of("hada_w2_b"))
    else:
        second = of("lokr_w2") if of("lokr_w2") is not None else of("lokr_w2_a") @ of("lokr_w2_b")
        delta = torch.kron(of("lokr_w1"), second).reshape(base.shape)
    whole = base + delta
    if of("dora_scale") is not None:
        whole = whole * (of("dora_scale") / base.norm(dim=1, keepdim=True))
    return whole


@pytest.mark.parametrize("kind", KINDS)
def test_comfyui_computes_the_trained_weights(flux, tmp_path, kind):
    transformer = trained(flux, kind)
    file = lora_file.read(lora_file.write(tmp_path / "a.safetensors", transformer, {}, torch.float32)).tensors
    bases = dict(flux.load_transformer().named_parameters())
    for module, delta in deltas(transformer).items():
        base = bases[f"{module}.weight"]
        assert delta.norm() > 0.01 * base.norm()
        assert torch.allclose(in_comfyui(file, module, base), base + delta, atol=1e-5), module
    assert lora_file.kind_in(tmp_path / "a.safetensors") == kind


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_verified_and_draws_as_it_was_trained(flux, tmp_path, kind, dtype):
    transformer = trained(flux, kind, ranks={"proj_out": 2})
    pipeline, text = flux.pipeline(transformer), flux.encode_text([SHOT.prompt])
    ours = np.asarray(draw(pipeline, SHOT, text), dtype=int)
    path = lora_file.write(tmp_path / "a.safetensors", transformer, {}, dtype)
    assert verify(pipeline, path, dtype) <= 4 * torch.finfo(dtype).eps
    assert np.array_equal(np.asarray(draw(pipeline, SHOT, text), dtype=int), ours)

    fresh = flux.pipeline(flux.load_transformer())
    base = np.asarray(draw(fresh, SHOT, text), dtype=int)
    lora_file.load(fresh, path, "mine")
    loaded = np.asarray(draw(fresh, SHOT, text), dtype=int)
    assert np.abs(loaded - base).max() > 2
    if dtype == torch.float32:
        assert np.abs(loaded - ours).max() <= 1
    fresh.disable_lora()
    assert np.array_equal(np.asarray(draw(fresh, SHOT, text), dtype=int), base)


def test_magnitudes_are_never_rounded(flux, flux_bf16, tmp_path):
    """In bf16 they would be off by up to 0.4 % of the whole weight."""
    transformer = trained(flux, "dora")
    path = lora_file.write(tmp_path / "a.safetensors", transformer, {}, torch.bfloat16)
    pipeline = flux_bf16.pipeline(flux_bf16.load_transformer())
    lora_file.load(pipeline, path, "mine")
    wanted = {adapter.module: adapter.magnitude_O for adapter in lora.adapters(transformer)}
    for adapter in lora.adapters(pipeline.transformer, "mine"):
        assert torch.equal(adapter.magnitude_O, wanted[adapter.module])
    kinds = {key.rpartition(".")[2]: tensor.dtype for key, tensor in lora_file.read(path).tensors.items()}
    assert kinds == {"weight": torch.bfloat16, "lora_magnitude_vector": torch.float32, "dora_scale": torch.float32}


def test_diffusers_reads_the_magnitudes_of_a_dora_by_itself(flux, tiny_flux, tmp_path):
    transformer = trained(flux, "dora")
    path = lora_file.write(tmp_path / "a.safetensors", transformer, {}, torch.float32)
    stock = FluxPipeline.from_pretrained(tiny_flux, dtype=torch.float32)
    stock.load_lora_weights(str(path), adapter_name="mine")
    found, wanted = deltas(stock.transformer, "mine"), deltas(transformer)
    assert all(torch.allclose(found[module], wanted[module], atol=1e-5) for module in wanted)


@pytest.mark.parametrize("kind", ["dora", "lokr", "loha"])
def test_verify_refuses_a_changed_file_of_every_kind(flux, tmp_path, kind):
    transformer = trained(flux, kind)
    path = lora_file.write(tmp_path / "a.safetensors", transformer, {}, torch.float32)
    tensors = safetensors.torch.load_file(path)
    first = next(key for key in tensors if key.endswith(("magnitude_vector", "_w1", "_w1_a")))
    safetensors.torch.save_file(tensors | {first: tensors[first] * 1.01}, path)
    with pytest.raises(Exception, match="is not what was trained"):
        verify(flux.pipeline(transformer), path, torch.float32)


@pytest.mark.parametrize("other", KINDS)
def test_kinds_add_up_in_one_mix_in_either_order(flux, tmp_path, other):
    """Every weight becomes W + 0.5 delta_1 + delta_2, whichever was loaded first."""
    made = {"one": trained(flux, "lora", seed=1), "two": trained(flux, other, seed=2)}
    paths = {
        name: lora_file.write(tmp_path / f"{name}.safetensors", transformer, {}, torch.float32)
        for name, transformer in made.items()
    }
    for order in (["one", "two"], ["two", "one"])[other == "dora" :]:  # a DoRA acts first, as `Mix` sees to
        pipeline = flux.pipeline(flux.load_transformer())
        for name in order:
            lora_file.load(pipeline, paths[name], name)
        pipeline.set_adapters(order, [{"one": 0.5, "two": 1.0}[name] for name in order])
        module = "transformer_blocks.0.attn.to_q"
        linear = flux.load_transformer().get_submodule(module)
        x = torch.randn(5, linear.in_features)
        weight = linear.weight + 0.5 * deltas(made["one"])[module] + deltas(made["two"])[module]
        layer = pipeline.transformer.get_submodule(module)
        with torch.no_grad():
            assert torch.allclose(layer(x), torch.nn.functional.linear(x, weight, linear.bias), atol=1e-4), order


def test_a_lokr_file_of_another_tool_is_read_with_its_alpha(flux, tmp_path):
    transformer = trained(flux, "lokr", alpha=4.0)
    ours = lora_file.read(lora_file.write(tmp_path / "a.safetensors", transformer, {}, torch.float32)).tensors
    theirs = {}
    for key, tensor in ours.items():
        module, _, kind = key.removeprefix("transformer.").rpartition(".")
        spelt = f"lycoris_{module.replace('.', '_')}"
        theirs[f"{spelt}.{kind}"] = tensor
        theirs[f"{spelt}.alpha"] = torch.tensor(2.0)
    safetensors.torch.save_file(theirs, tmp_path / "b.safetensors")
    pipeline = flux.pipeline(flux.load_transformer())
    lora_file.load(pipeline, tmp_path / "b.safetensors", "b")
    wanted, found = deltas(transformer), deltas(pipeline.transformer, "b")
    assert found.keys() == wanted.keys()
    for module, delta in found.items():
        decomposed = f"transformer.{module}.lokr_w2_a" in ours
        assert torch.allclose(delta, wanted[module] * (0.5 if decomposed else 1.0), atol=1e-6)


@pytest.mark.parametrize("targets", ["all", "modulation", r"transformer_blocks\.\d+\.attn\.to_(q|v)"])
@pytest.mark.parametrize("model", ["klein", "flux2"])
def test_flux2_files_have_bfl_names_and_load_exactly(model, targets, request, tmp_path):
    family = request.getfixturevalue(model)
    transformer = trained(family, targets=targets, ranks={"to_q": 2})
    tensors = bfl.tensors(transformer, family.layout)
    assert family.bfl_files
    assert all(key.startswith("diffusion_model.") for key in tensors)
    assert "diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight" in tensors
    path = lora_file.write(tmp_path / "a.safetensors", transformer, {}, torch.float32, tensors)
    stock = family.pipeline(family.load_transformer())
    stock.load_lora_weights(str(path), adapter_name="mine")
    found, wanted = deltas(stock.transformer, "mine"), deltas(transformer)
    for module, delta in found.items():
        assert torch.allclose(delta, wanted.get(module, torch.zeros_like(delta)), atol=1e-6), module
    assert wanted.keys() <= found.keys()
    if "to_(q" not in targets:
        assert verify(family.pipeline(transformer), path, torch.float32) < 1e-6


def test_flux2_refuses_kinds_without_a_file(klein):
    with pytest.raises(InputError, match=r"lora.kind=dora has no file for flux-2"):
        targets_of(klein, "all", kind="dora")


@pytest.mark.parametrize("model", ["flux", "klein"])
def test_kohya_files_hold_the_same_update_in_fused_rows(model, request, tmp_path):
    family = request.getfixturevalue(model)
    transformer = trained(family, targets="modulation", ranks={"to_k": 3})
    tensors = kohya.tensors(transformer, family.layout)
    wanted = deltas(transformer)
    for key in {key.partition(".")[0] for key in tensors}:
        down, up = tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"]
        whole = tensors[f"{key}.alpha"].item() / down.shape[0] * up @ down
        name = next(name for name in map(family.layout.holder, wanted) if f"lora_unet_{name.replace('.', '_')}" == key)
        assert torch.allclose(whole, torch.cat([wanted[part] for part in family.layout.split(name)]), atol=1e-6)
    if model == "flux":
        assert tensors["lora_unet_single_blocks_0_linear1.lora_up.weight"].shape == (64 * 3 + 256, 4 + 3 + 4 + 4)
    path = lora_file.write(tmp_path / "a.safetensors", transformer, {}, torch.bfloat16, tensors)
    assert verify(family.pipeline(transformer), path, torch.bfloat16) < 0.02


def test_kohya_files_of_full_width_say_to_diffusers_what_they_say_here():
    """diffusers' own reader splits at FLUX.1-dev's widths only: compare at those, block by block, without the base."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear) and "_blocks.0." in name:
            holder = bfl.FLUX1.holder(name)
            parts = [transformer.get_submodule(part) for part in bfl.FLUX1.split(holder)]
            key, rank = f"lora_unet_{holder.replace('.', '_')}", 2 * len(parts)
            blocks = [torch.randn(part.out_features, 2, generator=generator) for part in parts]
            weights[f"{key}.lora_down.weight"] = torch.randn(rank, module.in_features, generator=generator)
            weights[f"{key}.lora_up.weight"] = torch.block_diag(*blocks)
            weights[f"{key}.alpha"] = torch.tensor(3.0)
    ours = bfl.to_peft(weights, transformer)
    theirs = FluxPipeline.lora_state_dict(dict(weights))
    assert ours.keys() == theirs.keys()
    for key in ours:
        if key.endswith("lora_A.weight"):
            other = key.replace("lora_A", "lora_B")
            x = torch.randn(ours[key].shape[1], generator=generator)
            said = theirs[other] @ (theirs[key] @ x)
            assert torch.allclose(ours[other] @ (ours[key] @ x), said, rtol=1e-4, atol=1e-3)


def test_a_fused_file_in_bfl_names_acts_on_flux1_too(flux, tmp_path):
    """diffusers loads nothing from it, and says so to nobody."""
    transformer = trained(flux)
    path = tmp_path / "a.safetensors"
    lora_file.write(path, transformer, {}, torch.float32, bfl.tensors(transformer, flux.layout))
    assert verify(flux.pipeline(transformer), path, torch.float32) < 1e-6


def test_a_dora_of_another_tool_is_refused(flux, tmp_path):
    tensors = lora_file.factors(trained(flux, "dora"))
    kept = {key: tensor for key, tensor in tensors.items() if "magnitude" not in key}
    safetensors.torch.save_file(kept, tmp_path / "a.safetensors")
    with pytest.raises(LoraFileError, match="DoRA of another tool"):
        lora_file.load(flux.pipeline(flux.load_transformer()), tmp_path / "a.safetensors", "a")


def test_klein_is_drawn_with_by_the_stock_pipeline(klein, tiny_klein, tmp_path):
    transformer = trained(klein)
    text, shot = klein.encode_text([SHOT.prompt]), SHOT
    ours = np.asarray(draw(klein.pipeline(transformer), shot, text), dtype=int)
    path = tmp_path / "a.safetensors"
    lora_file.write(path, transformer, {}, torch.float32, bfl.tensors(transformer, klein.layout))
    stock = Flux2KleinPipeline.from_pretrained(tiny_klein, dtype=torch.float32)
    stock.set_progress_bar_config(disable=True)
    stock.load_lora_weights(str(path))
    drawn = stock(
        prompt=shot.prompt,
        width=64,
        height=64,
        num_inference_steps=2,
        guidance_scale=3.5,
        max_sequence_length=48,
        generator=torch.Generator().manual_seed(3),
    ).images[0]
    assert np.abs(np.asarray(drawn, dtype=int) - ours).max() <= 1
