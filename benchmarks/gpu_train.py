"""FLUX LoRA training at the full size of FLUX.1-dev on one GPU: seconds and memory of a step, beside a plain baseline.

PYTHONPATH=. python benchmarks/gpu_train.py equivalence sizes fp8 memory   [--steps 30 --output FILE]
prints each row as it is measured and writes all of them as JSON. Nothing is downloaded: the weights (11.9 billion,
random) are made on the card, since speed and memory do not depend on their values. `--device cpu --tiny` runs the same
code on a model of 0.6 million weights.

The baseline is diffusers' transformer with peft's adapter under bf16 autocast, eager, as it comes; everything else goes
through the package's own training step. Each row: the median seconds of a step (everything in it: forward, backward,
clipping, optimizer), the extremes, and the most memory that tensors took.
"""

from __future__ import annotations

import argparse
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from gpu_bench import CONFIGS, Bench, Step, gradients
from torch import Tensor

from lora_lightning.models.fast.attention import attention
from lora_lightning.models.fast.plan import Plan
from lora_lightning.models.fast.transformer import accelerate
from lora_lightning.models.memory import Setting, Storage

SIDES = (512, 768, 1024)
BLOCKS = 57


def fast_by(quantize: Storage = "none", **plan: Any) -> Setting:
    """The fast path, compiled; replayed as a CUDA graph unless blocks are streamed."""
    made = Plan(compile=True, dynamic=True, **plan)
    return Setting(quantize, fast=True, graph=not made.streamed, plan=made)


def sizes(bench: Bench) -> None:
    """The bf16 base: the eager baseline, with and without recomputing blocks, then the fast path, at each size."""
    module, steps = bench.build(), min(12, bench.options.steps)
    for side in SIDES:
        bench.measure("plain eager", module, side, Setting(), steps=steps)
    module.transformer.enable_gradient_checkpointing()
    for side in (512, 1024):
        bench.measure("plain eager, recomputed", module, side, Setting(plan=Plan(bare=BLOCKS)), steps=steps)
    del module
    fast(bench)


def fast(bench: Bench) -> None:
    """The bf16 base on the fast path: as fast as can be, then with blocks computed again, then without a graph."""
    module = bench.build()
    for side in reversed(SIDES):
        bench.measure("fast bf16", module, side, fast_by())
    for side in (1024, 512):
        bench.measure("fast bf16, attention kept", module, side, fast_by(recompute=BLOCKS), steps=10)
    bench.measure("fast bf16, half so", module, 1024, fast_by(recompute=BLOCKS // 2), steps=10)
    bench.measure("fast bf16, inputs kept", module, 1024, fast_by(bare=BLOCKS), steps=10)
    bench.measure("fast bf16, no graph", module, 1024, replace(fast_by(), graph=False), steps=10)


def profiles(bench: Bench) -> None:
    """Where the GPU's time goes at both ends, with the bf16 base and with fp8."""
    for quantize in ("none", "fp8"):
        module = bench.build(quantize=quantize)
        accelerate(module.transformer, Plan(compile=True, dynamic=True, keep_transposed=True))
        for side in (1024, 512):
            bench.profile(f"fast, quantize={quantize}", module, side, graph=True)
        del module


def memory(bench: Bench) -> None:
    """The bases in fewer bits under the usable memory of smaller cards: each at the size and limit of its goal."""
    plans: tuple[tuple[Storage, dict[str, int], int, float], ...] = (
        ("nf4", {"recompute": 57}, 1024, 14.5), ("nf4", {"bare": 57}, 1024, 10.8),
        ("nf4", {"recompute": 57}, 512, 0), ("nf4", {"bare": 27, "streamed": 30}, 768, 7.0),
        ("fp8", {"recompute": 57}, 1024, 22.5), ("fp8", {"recompute": 30}, 1024, 22.5),
        ("fp8", {"recompute": 57}, 512, 0),
        ("int8", {"recompute": 57}, 1024, 22.5), ("int8", {"recompute": 57}, 512, 0),
    )  # fmt: skip
    for base in bench.options.bases:
        module = bench.build(quantize=base, optimizer="adamw8bit")
        for quantize, plan, side, cap in plans:
            if quantize == base:
                told = ", ".join(f"{count} {level}" for level, count in plan.items()) or "everything kept"
                bench.measure(f"fast {base}, {told}", module, side, fast_by(base, **plan), cap=cap)
        del module


def products(bench: Bench) -> None:
    """The products of a stack alone: microseconds, and the least that arithmetic or reading their input takes."""
    for i, o, r in ((3072, 21504, 64), (15360, 3072, 16), (3072, 9216, 48), (12288, 3072, 16), (3072, 12288, 16)):
        _products(bench, i, o, r)


def _products(bench: Bench, i: int, o: int, r: int, tokens: int = 4608) -> None:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, device=bench.device, dtype=torch.bfloat16)

    def note(name: str, use: Callable[[], Any], least: float) -> None:
        bench.note(
            {"row": name, "us": round(1e6 * statistics.median(bench.times(use, 20)), 1), "least_us": round(least)}
        )

    x, dy, h, a = normal(tokens, i), normal(tokens, o), normal(tokens, r), normal(r, i)
    bound = 2 * tokens * i * o / 794e6
    for width in (0, r, 64):
        joined, matrix, back = normal(tokens, i + width), normal(o + width, i + width), normal(tokens, o + width)
        note(f"forward {i}+{width} -> {o}", partial(torch.mm, joined, matrix[:o].t()), bound)
        note(f"tall dx {o} -> {i}+{width}", partial(torch.mm, dy, matrix[:o]), bound)
        note(f"wide dx {o}+{width} -> {i}", partial(torch.mm, back, matrix[:, :i]), bound)
    note(f"h {i} -> {r}", partial(torch.mm, x, a.t()), x.nbytes / 3e6)
    note(f"dA {r} x {i}", partial(torch.mm, h.t(), x), x.nbytes / 3e6)
    note(f"dB {o} x {r}", partial(torch.mm, dy.t(), h), dy.nbytes / 3e6)


def fp8(bench: Bench) -> None:
    """The fp8 base with weights held twice."""
    module = bench.build(quantize="fp8")
    for side in reversed(SIDES):
        bench.measure("fast fp8, weights twice", module, side, fast_by("fp8", keep_transposed=True))


def buckets(bench: Bench) -> None:
    """Six aspect buckets of a megapixel in one training, after a smaller size: what each first step of one costs."""
    module = bench.build()
    accelerate(module.transformer, fast_by().plan)
    step = Step(module, [], graph=True)
    for height, width in ((512, 512), (1024, 1024), (832, 1216), (1216, 832), (896, 1152), (1152, 896), (768, 1344)):
        step.batches = bench.batches(height, 1, width)
        began = time.perf_counter()
        step()
        bench.wait()
        first, graphs = time.perf_counter() - began, torch._dynamo.utils.counters["stats"]["unique_graphs"]
        seconds = statistics.median(bench.times(step, 5))
        bench.note({
            "row": "bucket", "pixels": f"{width}x{height}", "first_step_s": round(first, 2), "programs": graphs,
            "s_per_step": round(seconds, 4), **bench.peaks(),
        })  # fmt: skip


def vae(bench: Bench) -> None:
    """What encoding and decoding a picture take of the memory, beside nothing else: FLUX.1's VAE, random weights."""
    with bench.device:
        model = AutoencoderKL.from_config(str(CONFIGS / "dev" / "vae")).requires_grad_(False)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("bf16, in tiles", torch.bfloat16)):
        model.to(dtype)
        if "tiles" in name:
            model.enable_tiling()
        for side in (512, 1024):
            pixels = torch.rand(1, 3, side, side, device=bench.device, dtype=dtype)
            latents = torch.randn(1, 16, side // 8, side // 8, device=bench.device, dtype=dtype)
            encoded, decoded = bench.peak_of(model.encode, pixels), bench.peak_of(model.decode, latents)
            bench.note({"row": f"VAE {name}", "side": side, "encode_gib": encoded, "decode_gib": decoded})


def equivalence(bench: Bench) -> None:
    """Loss and gradients on 2 + 4 blocks of full width against fp32: of the plain bf16 path, and of each fast one."""
    small = {} if bench.options.tiny else {"num_layers": 2, "num_single_layers": 4}
    batches = bench.batches(512, 8)
    plain = bench.build(dtype=torch.float32, **small)
    exact = [gradients(plain, batch, mixed=False) for batch in batches]
    del plain
    makes: dict[str, tuple[str, Plan | None]] = {
        "plain bf16": ("none", None),
        "fast bf16 eager": ("none", Plan()),
        "fast bf16 compiled": ("none", Plan(compile=True, dynamic=True)),
        "fast bf16 compiled, recomputed": ("none", Plan(compile=True, dynamic=True, recompute=6)),
        "fast fp8 compiled": ("fp8", Plan(compile=True, dynamic=True, keep_transposed=True)),
    }
    for name, (quantize, plan) in makes.items():
        module = bench.build(quantize=quantize, **small)
        if plan:
            accelerate(module.transformer, plan)
        found = [gradients(module, batch) for batch in batches]
        errors = [(got - want).norm() / want.norm() for (_, got), (_, want) in zip(found, exact, strict=True)]
        biases = [(got @ want) / (want @ want) - 1 for (_, got), (_, want) in zip(found, exact, strict=True)]
        losses = [abs(got / want - 1) for (got, _), (want, _) in zip(found, exact, strict=True)]
        bench.note({
            "row": f"equivalence {name}", "loss_error": float(f"{max(losses):.2e}"),
            "gradient_error": float(f"{torch.stack(errors).mean():.2e}"),
            "gradient_bias": float(f"{torch.stack(biases).mean():.2e}"),
        })  # fmt: skip


def kernels(bench: Bench) -> None:
    """Attention's gradients when that of its output is strided, as in the single blocks, against fp32; and its time."""
    heads, width = (24, 128) if bench.cuda else (4, 16)
    for tokens in (1536, 4608) if bench.cuda else (48,):
        parts = [torch.randn(1, tokens, heads, width, device=bench.device) for _ in range(3)]
        wide = torch.randn(1, tokens, 5 * heads * width, device=bench.device)

        def run(dtype: torch.dtype, use: Callable[..., Tensor], parts: Any = parts, wide: Any = wide) -> list[Tensor]:
            leaves = [part.to(dtype).requires_grad_() for part in parts]
            out = use(*leaves)
            return [*torch.autograd.grad(out, leaves, wide.to(dtype)[..., : out.shape[-1]])]

        def sdpa(*qkv: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in qkv)).transpose(1, 2).flatten(2)

        exact = run(torch.float32, sdpa)
        for name, use in {"own": attention, "own, compiled": torch.compile(attention), "FlashAttention": sdpa}.items():
            found = run(torch.bfloat16, use)
            bench.wait()
            began = time.perf_counter()
            for _ in range(10):
                run(torch.bfloat16, use)
            bench.wait()
            errors = [((got - want).norm() / want.norm()).item() for got, want in zip(found, exact, strict=True)]
            bench.note({
                "row": f"attention {name}", "tokens": tokens, "gradient_error": float(f"{max(errors):.2e}"),
                "ms": round((time.perf_counter() - began) * 100, 3),
            })  # fmt: skip


TABLES: dict[str, Callable[[Bench], None]] = {
    "kernels": kernels, "equivalence": equivalence, "sizes": sizes, "fp8": fp8,
    "profiles": profiles, "products": products, "memory": memory, "fast": fast, "vae": vae, "buckets": buckets,
}  # fmt: skip


def main() -> None:
    """Run the tables that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", choices=[*TABLES])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="a model of 0.6 million weights")
    parser.add_argument("--bases", nargs="+", default=["nf4", "fp8", "int8"], help="of the table memory")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    bench = Bench(options)
    for table in options.tables:
        try:
            TABLES[table](bench)
        except Exception:  # the other tables are worth having
            traceback.print_exc()


if __name__ == "__main__":
    main()
