"""What `gpu_train.py` measures with: one model on one device, its steps, and the rows.

Shapes: B batch, C latent channels, H W latent rows and columns.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from lora_lightning import plugins
from lora_lightning.models import lora
from lora_lightning.models.base import TextEmbedding
from lora_lightning.models.device import choose_device
from lora_lightning.models.families.flux1 import Flux1
from lora_lightning.models.fast.graph import GraphedLoss
from lora_lightning.models.source import Source
from lora_lightning.train.module import Batch, LoraTraining

DEV = {"num_layers": 19, "num_single_layers": 38, "guidance_embeds": True}
TINY = {
    "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16, "num_attention_heads": 4,
    "joint_attention_dim": 32, "pooled_projection_dim": 32, "guidance_embeds": True, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip
GIB = 2**30


class Bench:
    """One model on one device, and the rows measured with it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = choose_device() if options.device == "cuda" else torch.device("cpu")
        self.cuda = self.device.type == "cuda"
        self.rows: list[dict[str, Any]] = []
        self.started = time.monotonic()

    def build(self, *, quantize: str = "none", dtype: torch.dtype = torch.bfloat16, **config: Any) -> LoraTraining:
        """A transformer of random weights, its adapter (rank 16, all linears) and the training step around it."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
        config = (TINY if self.options.tiny else DEV) | config
        with torch.device("meta"):
            transformer = FluxTransformer2DModel(**config)
        torch.manual_seed(0)
        for module in [*transformer.transformer_blocks, *transformer.single_transformer_blocks, transformer]:
            self._fill(module, dtype)
            if quantize != "none" and module is not transformer:
                plugins.load("models/quantize", quantize).quantize(module, self.device, dtype)
        folder = Path(tempfile.mkdtemp())
        transformer.save_config(folder / "transformer")
        family = Flux1(Source(folder), self.device, dtype)
        lora.inject(transformer, rank=16, alpha=16.0, targets=family.lora_targets["all"], seed=0)
        for name, weight in lora.trainable(transformer).items():
            if ".lora_B." in name:
                nn.init.normal_(weight, std=0.02)
        return LoraTraining(family, transformer, optimizer="adamw", learning_rate=1e-4, max_gradient_norm=1.0)

    def _fill(self, module: nn.Module, dtype: torch.dtype) -> None:
        for owner in module.modules():
            for name, weight in owner._parameters.items():
                if weight is not None and weight.is_meta:
                    real = torch.empty(weight.shape, dtype=torch.float32, device=self.device)
                    nn.init.normal_(real, mean=1.0 if isinstance(owner, nn.RMSNorm) else 0.0, std=0.02)
                    owner._parameters[name] = nn.Parameter(real.bfloat16().to(dtype), requires_grad=False)

    def batches(self, side: int, count: int = 4) -> list[Batch]:
        """Random batches of one picture of side x side pixels and 512 text tokens."""
        config = TINY if self.options.tiny else DEV
        side = side // 16 if self.options.tiny else side
        texts = (32, 32, 32) if self.options.tiny else (512, 4096, 768)
        generator = torch.Generator(self.device).manual_seed(len(config))

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=self.device)

        return [
            Batch(
                normal(1, 16, side // 8, side // 8),
                normal(1, 16, side // 8, side // 8),
                torch.sigmoid(normal(1)),
                TextEmbedding(normal(1, *texts[:2]).bfloat16(), normal(1, texts[2]).bfloat16()),
            )
            for _ in range(count)
        ]

    def measure(self, name: str, module: LoraTraining, side: int, *, graph: bool = False, steps: int = 0) -> None:
        """Time steps and note the row; one that does not fit is noted as such."""
        steps = steps or self.options.steps
        self._reset_memory()
        began = time.monotonic()
        try:
            step = Step(module, self.batches(side), graph)
            for _ in range(3):
                step()
            self.wait()
            prepared = time.monotonic() - began
            seconds = self.times(step, steps)
        except Exception as error:  # the other rows are worth having
            if not isinstance(error, torch.OutOfMemoryError):
                traceback.print_exc()
            self.note({"row": name, "side": side, "error": str(error).strip().splitlines()[0][:120]})
            return
        row = {"row": name, "side": side, "s_per_step": round(statistics.median(seconds), 4), "n": steps}
        row |= {"min": round(min(seconds), 4), "max": round(max(seconds), 4), "prepare_s": round(prepared, 1)}
        if self.cuda:
            row["peak_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
            row["reserved_gib"] = round(torch.cuda.max_memory_reserved() / GIB, 2)
        self.note(row | {"loss": round(step.loss.item(), 4)})

    def times(self, step: Callable[[], Any], steps: int) -> list[float]:
        """Seconds of each call."""
        if not self.cuda:
            marks = [time.perf_counter()]
            for _ in range(steps):
                step()
                marks.append(time.perf_counter())
            return [b - a for a, b in pairwise(marks)]
        events = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
        events[0].record()
        for event in events[1:]:
            step()
            event.record()
        self.wait()
        return [a.elapsed_time(b) / 1000 for a, b in pairwise(events)]

    def cap(self, gib: float | None) -> None:
        """Let the process have no more memory than this, as on a smaller card."""
        if self.cuda:
            whole = torch.cuda.get_device_properties(self.device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / whole) if gib else 1.0)

    def profile(self, name: str, module: LoraTraining, side: int, graph: bool) -> None:
        """Print where the GPU's time of two steps goes, by kernel."""
        if not self.cuda:
            return
        self._reset_memory()
        step = Step(module, self.batches(side), graph)
        for _ in range(3):
            step()
        self.wait()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            step(), step()
            self.wait()
        totals: dict[str, list[float]] = {}
        for event in profiler.events():
            if event.device_type == torch.autograd.DeviceType.CUDA:
                total = totals.setdefault(event.name[:110], [0, 0])
                total[0] += event.device_time_total / 2000
                total[1] += 0.5
        ordered = sorted(totals.items(), key=lambda item: -item[1][0])
        busy, count = sum(ms for _, (ms, _) in ordered), sum(n for _, (_, n) in ordered)
        self.note({"row": f"profile {name}", "side": side, "gpu_busy_ms": round(busy, 1), "kernels": round(count)})
        for kernel, (ms, n) in ordered[:28]:
            print(f"    {ms:8.2f} ms {n:6.0f} x  {kernel}", flush=True)
        self.rows[-1]["top"] = [[kernel, round(ms, 2), n] for kernel, (ms, n) in ordered[:60]]

    def note(self, row: dict[str, Any]) -> None:
        """Print and keep a row."""
        row["at_s"] = round(time.monotonic() - self.started, 1)
        self.rows.append(row)
        print(row, flush=True)
        if self.options.output:
            self.options.output.parent.mkdir(parents=True, exist_ok=True)
            self.options.output.write_text(json.dumps({"machine": machine(self.cuda), "rows": self.rows}, indent=1))

    def _reset_memory(self) -> None:
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.cuda:
            torch.cuda.synchronize()


class Step:
    """One optimizer step after the other over some batches."""

    def __init__(self, module: LoraTraining, batches: Sequence[Batch], graph: bool) -> None:
        self.module, self.batches, self.count = module, batches, 0
        self.optimizer = module.configure_optimizers()
        cuda = module.family.device.type == "cuda"
        self.forward = GraphedLoss(self._loss, list(module.trainable.values())) if graph and cuda else self._loss
        self.loss = torch.zeros(())

    def _loss(self, batch: Batch) -> Tensor:
        with torch.autocast(self.module.family.device.type, torch.bfloat16, cache_enabled=False):
            return self.module.losses(batch).mean

    def __call__(self) -> None:
        """Make it."""
        self.loss = self.forward(self.batches[self.count % len(self.batches)])
        self.optimizer.zero_grad()
        self.loss.backward()
        nn.utils.clip_grad_norm_(self.module.trainable.values(), 1.0)
        self.optimizer.step()
        self.count += 1


def gradients(module: LoraTraining, batch: Batch, mixed: bool = True) -> tuple[float, Tensor]:
    """The loss of a batch and all its gradients as one vector."""
    module.zero_grad()
    if not mixed:
        batch = batch._replace(text=TextEmbedding(*(part.float() for part in batch.text)))
    with torch.autocast(batch.x0_BCHW.device.type, torch.bfloat16) if mixed else nullcontext():
        loss = module.losses(batch).mean
    loss.backward()
    return loss.item(), torch.cat([weight.grad.flatten() for weight in module.trainable.values()])


def machine(cuda: bool) -> dict[str, str]:
    """What the rows were measured on."""
    import diffusers
    import peft

    facts = {"date": time.strftime("%Y-%m-%d"), "python": sys.version.split()[0], "torch": torch.__version__}
    facts |= {"diffusers": diffusers.__version__, "peft": peft.__version__}
    if cuda:
        import triton

        facts |= {"card": torch.cuda.get_device_name(), "triton": triton.__version__}
    return facts
