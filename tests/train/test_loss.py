"""The mathematics: the loss and its gradient, against the equations written out here in full, and pinned.

The reference shares nothing with the package but the base weights: it packs, numbers and shifts by itself, and applies
the adapter by adding scale * B A to the weights of a plain diffusers transformer.
"""

import math

import pytest
import torch
from diffusers import FluxTransformer2DModel

from lora_lightning.models import lora
from lora_lightning.models.base import TextEmbedding, open_family
from lora_lightning.train.module import Batch, LoraTraining
from lora_lightning.train.timesteps import Timesteps

CPU = torch.device("cpu")
RANK, ALPHA = 4, 6.0


def module_of(folder, dtype=torch.float32, checkpointing=False):
    family = open_family(str(folder), device=CPU, dtype=dtype)
    transformer = family.load_transformer()
    lora.inject(transformer, rank=RANK, alpha=ALPHA, targets=family.lora_targets["all"], seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, weight in lora.trainable(transformer).items():
        if ".lora_B." in name:
            weight.data.normal_(std=0.05, generator=generator)
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    return LoraTraining(family, transformer, optimizer="adamw", learning_rate=1e-3, max_gradient_norm=1.0)


def inputs(count=2, height=6, width=10):
    generator = torch.Generator().manual_seed(7)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    latents = (normal(count, 16, height, width), normal(count, 16, height, width))
    return *latents, torch.sigmoid(normal(count)), normal(count, 32, 32), normal(count, 32)


def reference(folder, weights):
    """Loss and gradients of every A and B, straight from the equations (research: FLUX.1 loss, steps 2 to 7)."""
    x0, noise, u, t5, clip = inputs()
    b, c, h, w = x0.shape
    rows, columns = h // 2, w // 2

    mu = (1.15 - 0.5) / (4096 - 256) * (rows * columns) + 0.5 - 256 * (1.15 - 0.5) / (4096 - 256)
    sigma = math.exp(mu) / (math.exp(mu) + (1 / u - 1))
    x = torch.stack([(1 - sigma[n]) * x0[n] + sigma[n] * noise[n] for n in range(b)])

    def packed(picture):
        tokens = []
        for row in range(rows):
            for column in range(columns):
                patch = picture[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                tokens.append(patch.reshape(b, c * 4))
        return torch.stack(tokens, dim=1)

    ids = torch.tensor([[0.0, row, column] for row in range(rows) for column in range(columns)])
    transformer = FluxTransformer2DModel.from_pretrained(folder, subfolder="transformer", dtype=torch.float32)
    own = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    adapted = dict(transformer.named_parameters())
    for name in {name.split(".lora_")[0] for name in own}:
        update = own[f"{name}.lora_B.default.weight"] @ own[f"{name}.lora_A.default.weight"]
        adapted[f"{name}.weight"] = adapted[f"{name}.weight"] + ALPHA / RANK * update
    estimate = torch.func.functional_call(
        transformer,
        adapted,
        kwargs={
            "hidden_states": packed(x),
            "timestep": sigma,
            "guidance": torch.ones(b) if transformer.config.guidance_embeds else None,
            "pooled_projections": clip,
            "encoder_hidden_states": t5,
            "txt_ids": torch.zeros(32, 3),
            "img_ids": ids,
            "return_dict": False,
        },
    )[0]
    loss = ((estimate - packed(noise - x0)) ** 2).mean()
    gradients = torch.autograd.grad(loss, list(own.values()))
    return loss.detach(), dict(zip(own, gradients, strict=True))


def batch_of(dtype=torch.float32):
    x0, noise, u, t5, clip = inputs()
    k = Timesteps(shift="resolution").factor(15)
    sigma = k * u / (1 + (k - 1) * u)
    return Batch(x0, noise, sigma, TextEmbedding(t5.to(dtype), clip.to(dtype)))


@pytest.mark.parametrize("model", ["tiny_flux", "tiny_schnell"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradient_equal_the_equations(model, checkpointing, request):
    folder = request.getfixturevalue(model)
    module = module_of(folder, checkpointing=checkpointing)
    loss = module.training_step(batch_of(), 0)
    loss.backward()
    names = {name.removeprefix("transformer."): weight for name, weight in module.trainable.items()}
    wanted, gradients = reference(folder, {name: weight.detach() for name, weight in names.items()})
    assert abs(loss.item() - wanted.item()) <= 1e-6
    for name, weight in names.items():
        difference = weight.grad - gradients[name]
        assert difference.abs().max() <= 1e-6, name
        assert difference.norm() <= 1e-4 * gradients[name].norm(), name  # also where the gradient itself is small


@pytest.mark.parametrize(("model", "pinned"), [("tiny_flux", 2.3140501976), ("tiny_schnell", 2.4243867397)])
def test_golden_loss(model, pinned, request):
    """A change of this number is a change of what is trained: say so in the changelog, with the reason."""
    module = module_of(request.getfixturevalue(model))
    assert module.training_step(batch_of(), 0).item() == pytest.approx(pinned, abs=1e-6)


def test_it_learns_one_batch_by_heart(tiny_flux):
    module, batch = module_of(tiny_flux), batch_of()
    optimizer = module.configure_optimizers()
    optimizer.param_groups[0]["lr"] = 1e-2
    losses = []
    for _ in range(40):
        loss = module.training_step(batch, 0)
        loss.backward()
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_mixed_precision_keeps_the_base_in_bf16_the_adapter_and_the_loss_in_fp32(tiny_flux):
    module = module_of(tiny_flux, torch.bfloat16)
    exact = module_of(tiny_flux).training_step(batch_of(), 0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = module.training_step(batch_of(torch.bfloat16), 0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert {weight.dtype for weight in module.trainable.values()} == {torch.float32}
    assert {weight.grad.dtype for weight in module.trainable.values()} == {torch.float32}
    assert module.transformer.x_embedder.weight.dtype == torch.bfloat16
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)


def test_a_checkpoint_without_a_trained_weight_is_an_error(tiny_flux):
    module = module_of(tiny_flux)
    state = module.state_dict()
    assert state.keys() == module.trainable.keys()
    assert all("lora_" in name for name in state)
    state.pop(next(iter(state)))
    with pytest.raises(AssertionError, match="lacks"):
        module.on_load_checkpoint({"state_dict": state})
