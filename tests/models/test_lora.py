"""Adapters: which linears, in which precision, and that nothing else is touched."""

import re

import pytest
import torch
from diffusers import FluxTransformer2DModel

from lora_lightning.errors import InputError
from lora_lightning.models import lora
from lora_lightning.models.base import TextEmbedding
from lora_lightning.models.families.flux1 import _targets
from lora_lightning.models.start import targets_of


def modules(transformer):
    return [adapter.module for adapter in lora.adapters(transformer)]


def inject(family, targets="all", **changes):
    transformer = family.load_transformer()
    options = {"rank": 4, "alpha": 4.0, "targets": family.lora_targets.get(targets, targets), "seed": 0} | changes
    lora.inject(transformer, **options)
    return transformer


KINDS = ("lora", "dora", "lokr", "loha")


def test_attention_is_adapted_in_both_kinds_of_block(flux):
    found = modules(inject(flux, "attention"))
    double = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
    single = ["to_q", "to_k", "to_v"]
    wanted = {f"transformer_blocks.{n}.attn.{name}" for n in range(2) for name in double}
    wanted |= {f"single_transformer_blocks.{n}.attn.{name}" for n in range(2) for name in single}
    assert set(found) == wanted


def test_all_adds_every_linear_that_works_on_tokens_and_no_modulation(flux):
    transformer = inject(flux, "all")
    found = set(modules(transformer))
    in_blocks = {
        name.replace(".base_layer", "")
        for name, module in transformer.named_modules()
        if isinstance(module, torch.nn.Linear) and "transformer_blocks." in name and ".lora_" not in name
    }
    modulation = {name for name in in_blocks if name.split(".")[2].startswith("norm")}
    assert found == in_blocks - modulation
    assert len(found) == 2 * 12 + 2 * 5
    assert len(modulation) == 2 * 2 + 2


def test_the_base_is_frozen_and_the_adapter_is_fp32(flux_bf16):
    transformer = inject(flux_bf16)
    trained = lora.trainable(transformer)
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    frozen = [weight for name, weight in transformer.named_parameters() if name not in trained]
    assert {weight.dtype for weight in frozen} == {torch.bfloat16}
    assert not any(weight.requires_grad for weight in frozen)


@pytest.mark.parametrize(("rank", "alpha", "scale"), [(4, 4.0, 1.0), (4, 8.0, 2.0), (8, 1.0, 0.125)])
def test_it_begins_as_the_base_and_is_scaled_by_alpha_over_rank(flux, rank, alpha, scale):
    for adapter in lora.adapters(inject(flux, rank=rank, alpha=alpha)):
        assert adapter.scale == scale
        assert adapter.a_RI.shape[0] == rank
        assert adapter.a_RI.abs().max() > 0
        assert not adapter.delta_OI().any()


def test_the_seed_alone_decides_how_it_begins(flux, flux_bf16):
    def first(family, seed):
        return next(lora.adapters(inject(family, seed=seed))).a_RI

    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = first(flux, 3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(first(flux, 3), one)
    assert torch.equal(first(flux_bf16, 3), one)  # not rounded to the base's precision
    assert not torch.equal(first(flux, 4), one)


def test_modulation_adds_the_linears_that_see_a_picture_once(flux):
    found = set(modules(inject(flux, "modulation")))
    added = found - set(modules(inject(flux, "all")))
    double = {f"transformer_blocks.{n}.{norm}.linear" for n in range(2) for norm in ("norm1", "norm1_context")}
    assert added == double | {f"single_transformer_blocks.{n}.norm.linear" for n in range(2)}


def test_content_and_style_are_single_blocks_0_to_9_and_10_to_37_of_dev_and_share_none():
    """By SplitFlux's map of FLUX.1-dev, on its real module names, without its weights."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(guidance_embeds=True)
    names = [name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)]
    presets = _targets(38)

    def blocks(preset):
        return {int(name.split(".")[1]) for name in names if re.fullmatch(presets[preset], name)}

    def chosen(preset):
        return {name for name in names if re.fullmatch(presets[preset], name)}

    assert blocks("content") == set(range(10))
    assert blocks("style") == set(range(10, 38))
    assert all(name.startswith("single_") for name in chosen("content") | chosen("style"))
    assert len(chosen("content")) == 10 * 5
    assert chosen("content") | chosen("style") == {name for name in chosen("all") if name.startswith("single_")}
    assert len(chosen("all")) == 19 * 12 + 38 * 5


@pytest.mark.parametrize("model", ["klein", "flux2"])
@pytest.mark.parametrize(("preset", "count"), [("attention", 20), ("all", 28), ("modulation", 28 + 3)])
def test_presets_of_flux2_adapt_its_fused_single_blocks(model, preset, count, request):
    found = modules(inject(request.getfixturevalue(model), preset))
    assert len(found) == count
    fused = {f"single_transformer_blocks.{n}.attn.{part}" for n in range(2) for part in ("to_qkv_mlp_proj", "to_out")}
    assert fused <= set(found)


def test_blocks_that_nobody_measured_are_refused(flux, klein):
    assert targets_of(flux, "style", "") == flux.lora_targets["style"]
    assert targets_of(klein, "style", r".*\.to_q") == r".*\.to_q"
    with pytest.raises(InputError, match=r"lora.targets=style is not known for flux-2") as caught:
        targets_of(klein, "style", "")
    assert "attention, all, modulation" in caught.value.hint


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_differ_by_module_and_the_scale_does_not(flux, kind):
    ranks = {r"transformer_blocks\.0\..*": 2, "proj_out": 3}
    transformer = inject(flux, rank=4, alpha=8.0, ranks=ranks, kind=kind)
    for module, layer in lora.adapted(transformer):
        first = module.startswith("transformer_blocks.0.")
        wanted = 2 if first else 3 if module.endswith("proj_out") else 4
        assert (layer.r["default"], layer.scaling["default"]) == (wanted, 2.0), module


def test_an_expression_that_matches_nothing_is_an_error(flux):
    with pytest.raises(InputError, match="no linear of this model") as caught:
        inject(flux, r"nothing\..*")
    assert "blocks." in caught.value.hint
    with pytest.raises(InputError, match=r"lora.ranks: 'nothing' matches none of the 34"):
        inject(flux, "all", ranks={"nothing": 2})


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_rslora_scales_by_the_root_of_the_rank(flux, rank):
    transformer = inject(flux, rank=rank, alpha=8.0, rslora=True, ranks={"proj_out": 9})
    for adapter in lora.adapters(transformer):
        used = 9 if adapter.module.endswith("proj_out") else rank
        assert adapter.scale == pytest.approx(8.0 / used**0.5)


def velocity(family, transformer):
    generator = torch.Generator().manual_seed(3)
    x, sigma = torch.randn(1, 16, 4, 4, generator=generator), torch.tensor([0.4])
    text = TextEmbedding(torch.randn(1, 32, 32, generator=generator), torch.randn(1, 32, generator=generator))
    return family.velocity(transformer, x, sigma, text)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_begins_as_the_base_in_fp32_and_learns(flux, flux_bf16, kind):
    plain = flux.load_transformer()
    transformer = inject(flux, kind=kind)
    weights = lora.trainable(transformer)
    assert {weight.dtype for weight in lora.trainable(inject(flux_bf16, kind=kind)).values()} == {torch.float32}
    with torch.no_grad():
        base = velocity(flux, plain)
        assert torch.allclose(velocity(flux, transformer), base, atol=1e-5)
    goal = base + 0.1
    optimizer = torch.optim.Adam(weights.values(), lr=1e-2)
    losses = []
    for _ in range(5):
        loss = (velocity(flux, transformer) - goal).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert torch.equal(plain.x_embedder.weight, transformer.x_embedder.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_the_change_of_a_weight_is_what_the_layer_computes(flux, kind):
    """W' x by the layer equals (W + delta W) x, delta W by the formula of the kind."""
    transformer = inject(flux, kind=kind, alpha=6.0)
    shaken(transformer)
    _, layer = next(iter(lora.adapted(transformer)))
    linear = layer.get_base_layer()
    x = torch.randn(5, linear.in_features)
    with torch.no_grad():
        changed = torch.nn.functional.linear(x, linear.weight + lora.delta_OI(layer, "default"), linear.bias)
        assert not torch.allclose(layer(x), linear(x), atol=1e-3)
        assert torch.allclose(layer(x), changed, atol=1e-5)


def shaken(transformer, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for weight in lora.trainable(transformer).values():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_dropout_is_a_function_of_the_random_state_and_off_while_drawing(flux, kind, checkpointing):
    transformer = inject(flux, kind=kind, dropout=0.5)
    shaken(transformer)
    if checkpointing:
        transformer.enable_gradient_checkpointing()

    def gradient(seed):
        torch.manual_seed(seed)
        velocity(flux, transformer).square().mean().backward()
        found = torch.cat([weight.grad.flatten() for weight in lora.trainable(transformer).values()])
        transformer.zero_grad()
        return found

    transformer.train()
    once = gradient(5)
    assert torch.equal(gradient(5), once)
    assert not torch.equal(gradient(6), once)
    with torch.no_grad():
        torch.manual_seed(5)
        trained = velocity(flux, transformer)
        transformer.eval()
        drawn = velocity(flux, transformer)
        assert torch.equal(velocity(flux, transformer), drawn)
        assert not torch.equal(trained, drawn)


@pytest.mark.parametrize("quantize", ["nf4", "int8", "fp8"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_right_on_a_quantised_base_or_refused(flux_bf16, kind, quantize):
    """Where peft would fail, or take 8-bit numbers for weights, nothing is trained."""
    transformer = flux_bf16.load_transformer(quantize)
    plain = flux_bf16.load_transformer(quantize)
    wrong = {"dora": quantize != "nf4", "lokr": quantize == "nf4", "loha": quantize == "nf4"}.get(kind, False)
    options = {"rank": 4, "alpha": 4.0, "targets": flux_bf16.lora_targets["all"], "seed": 0, "kind": kind}
    if wrong:
        with pytest.raises(InputError, match=f"lora.kind={kind} cannot be trained on a base in . bit"):
            lora.inject(transformer, **options)
        return
    lora.inject(transformer, **options)
    generator = torch.Generator().manual_seed(3)
    x, sigma = torch.randn(1, 16, 4, 4, generator=generator), torch.tensor([0.4])
    text = TextEmbedding(torch.randn(1, 32, 32).bfloat16(), torch.randn(1, 32).bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        begun = flux_bf16.velocity(transformer, x, sigma, text)
        with torch.no_grad():
            base = flux_bf16.velocity(plain, x, sigma, text)
        begun.float().square().mean().backward()
    assert (begun - base).float().norm() < 0.02 * base.float().norm()
    learned = {name for name, weight in lora.trainable(transformer).items() if weight.grad.norm() > 0}
    assert len(learned) >= 34  # one factor of each linear begins at zero, and only that one moves at first
