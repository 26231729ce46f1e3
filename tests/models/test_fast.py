"""The fast training path against peft's own: the same function, the same file, on every kind of base."""

import pytest
import torch
from torch._dynamo.utils import counters

from lora_lightning.models import lora
from lora_lightning.models.base import TextEmbedding, open_family
from lora_lightning.models.fast import attention
from lora_lightning.models.fast.plan import Level, Plan
from lora_lightning.models.fast.transformer import accelerate
from lora_lightning.models.lora_files import diffusers as lora_file
from lora_lightning.models.lora_files.verify import verify


def inputs(count=2, height=6, width=10, dtype=torch.float32):
    generator = torch.Generator().manual_seed(7)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    text = TextEmbedding(normal(count, 32, 32).to(dtype), normal(count, 32).to(dtype))
    return normal(count, 16, height, width), torch.sigmoid(normal(count)), text


def adapted(family, plan=None, quantize="none", targets="all", **options):
    transformer = family.load_transformer(quantize)
    names = family.lora_targets[targets]
    lora.inject(transformer, **({"rank": 4, "alpha": 6.0, "targets": names, "seed": 0} | options))
    generator = torch.Generator().manual_seed(1)
    for name, weight in lora.trainable(transformer).items():
        if ".lora_B." in name:
            weight.data.normal_(std=0.05, generator=generator)
    if plan:
        assert accelerate(transformer, plan)
    return transformer


def loss_and_gradient(family, transformer, batch=None):
    x, sigma, text = batch or inputs()
    transformer.zero_grad()
    loss = family.velocity(transformer, x, sigma, text).square().mean()
    loss.backward()
    return loss.item(), {name: weight.grad.clone() for name, weight in lora.trainable(transformer).items()}


def assert_same(got, wanted, bound):
    assert got[0] == pytest.approx(wanted[0], rel=bound)
    assert got[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        assert (got[1][name] - gradient).norm() <= bound * gradient.norm(), name


@pytest.mark.parametrize("targets", ["all", "attention", "style"])
@pytest.mark.parametrize("model", ["flux", "schnell"])
def test_loss_and_gradients_are_those_of_peft(model, targets, request):
    family = request.getfixturevalue(model)
    wanted = loss_and_gradient(family, adapted(family, targets=targets))
    assert_same(loss_and_gradient(family, adapted(family, Plan(), targets=targets)), wanted, 1e-5)


@pytest.mark.parametrize(
    "plan", [Plan(recompute=3), Plan(bare=4), Plan(recompute=1, bare=1, streamed=1), Plan(streamed=4)], ids=str
)
def test_what_is_computed_again_or_streamed_is_the_same_bit_for_bit(flux, plan):
    kept = loss_and_gradient(flux, adapted(flux, Plan(), "nf4"))
    transformer = adapted(flux, plan, "nf4")
    for _ in range(2):  # a streamed block's place is taken by others in between
        again = loss_and_gradient(flux, transformer)
        assert again[0] == kept[0]
        assert all(torch.equal(again[1][name], gradient) for name, gradient in kept[1].items())


def test_streamed_weights_are_on_the_device_only_in_their_turn_and_drawing_brings_them_too(flux):
    plain, transformer = (adapted(flux, plan, "int8") for plan in (Plan(), Plan(streamed=4)))
    weights = [block.attn.to_q.base_layer.weight for block in transformer.transformer_blocks]
    assert all(weight.numel() == 0 for weight in weights)
    x, sigma, text = inputs()
    with torch.no_grad():
        assert torch.equal(flux.velocity(transformer, x, sigma, text), flux.velocity(plain, x, sigma, text))
    assert all(weight.numel() for weight in weights)


@pytest.mark.parametrize("blocks", [1, 4, 57])
@pytest.mark.parametrize("counts", [(0, 0, 0), (1, 2, 1), (57, 0, 0), (20, 20, 20)])
def test_every_level_gets_as_many_blocks_as_are_left_to_it(blocks, counts):
    recompute, bare, streamed = counts
    levels = Plan(recompute=recompute, bare=bare, streamed=streamed).levels(blocks)
    assert len(levels) == blocks
    assert levels.count(Level.STREAMED) == min(streamed, blocks)
    assert levels.count(Level.INPUT) == min(bare, blocks - levels.count(Level.STREAMED))
    left = blocks - levels.count(Level.STREAMED) - levels.count(Level.INPUT)
    assert levels.count(Level.ATTENTION) == min(recompute, left)


def test_two_forward_passes_may_be_differentiated_together(flux):
    plain, fast = adapted(flux), adapted(flux, Plan())
    found = []
    for transformer in (plain, fast):
        first, second = (flux.velocity(transformer, *inputs(height=height)).square().mean() for height in (6, 8))
        (first + second).backward()
        found.append({name: weight.grad for name, weight in lora.trainable(transformer).items()})
    assert_same((0, found[1]), (0, found[0]), 1e-5)


@pytest.mark.parametrize("quantize", ["int8", "nf4"])
def test_on_a_stored_base_it_is_what_peft_computes_on_that_base(flux, quantize):
    wanted = loss_and_gradient(flux, adapted(flux, quantize=quantize))
    assert_same(loss_and_gradient(flux, adapted(flux, Plan(), quantize)), wanted, 1e-5)


@pytest.mark.parametrize("keep_transposed", [False, True])
def test_fp8_rounds_inputs_and_gradients_too_and_stays_near(flux, keep_transposed):
    wanted = loss_and_gradient(flux, adapted(flux, quantize="fp8"))
    got = loss_and_gradient(flux, adapted(flux, Plan(keep_transposed=keep_transposed), "fp8"))
    assert_same(got, wanted, 0.15)
    assert got[0] != wanted[0]


def test_bf16_is_as_near_to_fp32_as_the_plain_path(flux, flux_bf16):
    exact = loss_and_gradient(flux, adapted(flux))

    def distance(plan):
        with torch.autocast("cpu", torch.bfloat16):
            _, found = loss_and_gradient(flux_bf16, adapted(flux_bf16, plan), inputs(dtype=torch.bfloat16))
        errors = torch.stack([(found[name] - gradient).norm() for name, gradient in exact[1].items()])
        return errors.norm() / torch.stack([gradient.norm() for gradient in exact[1].values()]).norm()

    assert distance(Plan()) <= 1.1 * distance(None)


def test_it_learns_as_peft_does_and_the_file_is_the_same(flux, tmp_path):
    files = []
    for name, plan in {"plain": None, "fast": Plan(recompute=2)}.items():
        transformer = adapted(flux, plan)
        optimizer = torch.optim.AdamW(lora.trainable(transformer).values(), lr=1e-2)
        for _ in range(4):
            loss_and_gradient(flux, transformer)
            optimizer.step()
        path = lora_file.write(tmp_path / f"{name}.safetensors", transformer, {}, torch.float32)
        assert verify(flux.pipeline(transformer), path, torch.float32) < 1e-6
        files.append(lora_file.read(path).tensors)
    plain, fast = files
    assert list(fast) == list(plain)
    # Adam divides by the gradient's size, so rounding moves weights whose gradient is nearly zero.
    assert all((fast[key] - weight).norm() < 1e-3 * weight.norm() for key, weight in plain.items())


def test_drawing_and_the_modules_see_the_same_weights(flux):
    plain, fast = adapted(flux), adapted(flux, Plan())
    for (name, ours), theirs in zip(fast.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    x, sigma, text = inputs()
    with torch.no_grad():
        assert torch.allclose(flux.velocity(fast, x, sigma, text), flux.velocity(plain, x, sigma, text), atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"kind": "dora"}, {"kind": "lokr"}, {"dropout": 0.1}, {"targets_": "modulation"}], ids=str
)
def test_what_it_does_not_know_trains_as_before(flux, options):
    transformer = adapted(flux, targets=options.pop("targets_", "all"), **options)
    assert accelerate(transformer, Plan()) is None
    assert "forward" not in vars(transformer)
    loss_and_gradient(flux, transformer)


@pytest.mark.parametrize("quantize", ["none", "nf4", "int8", "fp8"])
def test_one_program_for_each_kind_of_block_serves_every_size(flux, quantize, monkeypatch):
    wanted = adapted(flux, Plan(), quantize)
    monkeypatch.setattr(torch, "compile", lambda function, _compile=torch.compile, **options: _compile(
        function, backend="eager", **options
    ))  # fmt: skip
    torch._dynamo.reset()
    counters.clear()
    transformer = adapted(flux, Plan(compile=True, dynamic=True, recompute=2), quantize)
    for height, width in ((6, 10), (8, 8), (10, 12)):
        batch = inputs(1, height, width)
        bound = 0.05 if quantize == "fp8" else 1e-5  # where rounding turns over, a value moves by a sixteenth
        assert_same(loss_and_gradient(flux, transformer, batch), loss_and_gradient(flux, wanted, batch), bound)
    modulation = 1 if quantize in ("int8", "fp8") else 0
    assert counters["stats"]["unique_graphs"] == 4 + modulation  # two kinds of block, each at two levels


def test_the_gradient_that_attention_gets_is_contiguous():
    seen = []
    out = torch.randn(1, 2, 5, 4, requires_grad=True)
    out.register_hook(lambda gradient: seen.append(gradient.transpose(1, 2).is_contiguous()))
    wide = attention._ContiguousGradient.apply(out * 1).transpose(1, 2).flatten(2)
    torch.cat((wide, wide), -1).sum().backward()
    assert seen == [True]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_graph_gives_the_same_loss_and_gradients_for_each_size(tiny_flux):
    from lora_lightning.models.fast.graph import GraphedLoss

    family = open_family(str(tiny_flux), device=torch.device("cuda"), dtype=torch.bfloat16)
    transformer = adapted(family, Plan())
    weights = list(lora.trainable(transformer).values())

    def loss_of(batch):
        return family.velocity(transformer, *batch).float().square().mean()

    graphed = GraphedLoss(loss_of, weights)
    for height in (6, 8, 6):
        x, sigma, text = inputs(1, height, 10, torch.bfloat16)
        batch = (x.cuda(), sigma.cuda(), TextEmbedding(*(part.cuda() for part in text)))
        wanted = torch.autograd.grad(loss_of(batch), weights)
        transformer.zero_grad()
        for _ in range(2):  # accumulates
            (graphed(batch) / 2).backward()
        for weight, gradient in zip(weights, wanted, strict=True):
            assert torch.allclose(weight.grad, gradient, rtol=1e-2, atol=1e-6)
