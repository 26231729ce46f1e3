"""Adapters: which linears, in which precision, and that nothing else is touched."""

import pytest
import torch

from lora_lightning.models import lora


def modules(transformer):
    return [adapter.module for adapter in lora.adapters(transformer)]


def inject(family, targets="all", **changes):
    transformer = family.load_transformer()
    options = {"rank": 4, "alpha": 4.0, "targets": family.lora_targets[targets], "seed": 0} | changes
    lora.inject(transformer, **options)
    return transformer


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
