"""LoRA steps a second on flux-mini and the CPU: a plain diffusers + peft + bf16-autocast loop, and the package's step.

PYTHONPATH=. python benchmarks/cpu_train.py [--rounds 8 --steps 5]: prints the table and writes
benchmarks/results/cpu_train.json. The loops take turns in one process, on one thread, and processor time is counted:
what else the machine does then hardly matters. Each starts from the same adapter and sees the same batches, and the
last losses are printed beside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import FluxTransformer2DModel
from peft import LoraConfig
from torch import Tensor, nn

from lora_lightning.models import flow, lora
from lora_lightning.models.base import TextEmbedding, open_family
from lora_lightning.models.fast.transformer import Plan, accelerate
from lora_lightning.train.module import Batch, LoraTraining

ROOT = Path(__file__).parents[1]
MINI = ROOT / "lora_lightning/demo/models/flux-mini"
RESULT = ROOT / "benchmarks/results/cpu_train.json"
CPU = torch.device("cpu")
BATCH, SIDE, RANK, RATE = 4, 128, 16, 1e-3


def batches(count: int, texts: TextEmbedding) -> list[Batch]:
    """Random pictures and noise, real texts."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    side = SIDE // 8
    return [
        Batch(normal(BATCH, 16, side, side), normal(BATCH, 16, side, side), torch.sigmoid(normal(BATCH)), texts)
        for _ in range(count)
    ]


def plain(targets: str, begin: dict[str, Tensor]) -> Callable[[Batch], float]:
    """The loop that one would write with diffusers and peft: autocast, an fp32 adapter on a bf16 base."""
    transformer = FluxTransformer2DModel.from_pretrained(MINI / "transformer", torch_dtype=torch.bfloat16)
    transformer.requires_grad_(False)
    transformer.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets))
    weights = {name: weight for name, weight in transformer.named_parameters() if weight.requires_grad}
    for name, weight in weights.items():
        weight.data = begin[name].clone()
    optimizer = torch.optim.AdamW(weights.values(), lr=RATE, weight_decay=1e-4)

    def step(batch: Batch) -> float:
        b, _, h, w = batch.x0_BCHW.shape
        sigma_B111 = batch.sigma_B.view(-1, 1, 1, 1)
        x_BCHW = (1 - sigma_B111) * batch.x0_BCHW + sigma_B111 * batch.noise_BCHW
        with torch.autocast("cpu", torch.bfloat16):
            z_BLD = transformer(
                hidden_states=flow.pack(x_BCHW),
                timestep=batch.sigma_B,
                guidance=torch.ones(b),
                pooled_projections=batch.text.pooled_BD,
                encoder_hidden_states=batch.text.sequence_BLD,
                txt_ids=torch.zeros(batch.text.sequence_BLD.shape[1], 3),
                img_ids=flow.image_ids(h, w),
                return_dict=False,
            )[0]
        loss = F.mse_loss(flow.unpack(z_BLD, h, w).float(), batch.noise_BCHW - batch.x0_BCHW)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def own(plan: Plan | None) -> tuple[Callable[[Batch], float], dict[str, Tensor], TextEmbedding, str]:
    """The package's training step; also how its adapter begins, and some texts."""
    family = open_family(str(MINI), device=CPU, dtype=torch.bfloat16)
    texts = family.encode_text([f"a red fox number {n}" for n in range(BATCH)])
    transformer = family.load_transformer()
    targets = family.lora_targets["all"]
    lora.inject(transformer, rank=RANK, alpha=float(RANK), targets=targets, seed=0)
    begin = {name: weight.detach().clone() for name, weight in lora.trainable(transformer).items()}
    if plan:
        accelerate(transformer, plan)
    module = LoraTraining(family, transformer, optimizer="adamw", learning_rate=RATE, max_gradient_norm=1.0)
    optimizer: Any = module.configure_optimizers()

    def step(batch: Batch) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            loss = module.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
        return loss.item()

    return step, begin, texts, targets


def main() -> None:
    """Take turns, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="of each loop in a round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    fast, begin, texts, targets = own(Plan())
    loops = {"plain diffusers + peft": plain(targets, begin), "the package's step": own(None)[0], "fast": fast}
    data = batches(options.steps, texts)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    losses: dict[str, float] = {}
    for turn in range(options.rounds + 1):
        for name, step in loops.items():
            began = time.process_time()
            for batch in data:
                losses[name] = step(batch)
            if turn:  # the first round warms up
                seconds[name].append((time.process_time() - began) / options.steps)
    first = seconds["plain diffusers + peft"]
    table = {
        name: {
            "steps_per_processor_second": round(1 / statistics.median(times), 3),
            "times_plain": round(statistics.median(a / b for a, b in zip(first, times, strict=True)), 3),
            "last_loss": round(losses[name], 4),
        }
        for name, times in seconds.items()
    }
    print(*(f"{name}: {row}" for name, row in table.items()), sep="\n")
    facts = {"date": time.strftime("%Y-%m-%d"), "torch": torch.__version__, "threads": 1}
    RESULT.write_text(json.dumps({"machine": facts, "batch": BATCH, "side": SIDE, "rows": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
