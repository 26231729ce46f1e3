"""What `gpu_train.py` measures with: one model on one device, its steps, and the rows.

Shapes: B batch, C latent channels, H W latent rows and columns.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

import lora_lightning.models
from lora_lightning import plugins
from lora_lightning.models import lora
from lora_lightning.models.base import TextEmbedding
from lora_lightning.models.device import choose_device
from lora_lightning.models.families.flux1 import Flux1
from lora_lightning.models.fast.graph import GraphedLoss
from lora_lightning.models.fast.transformer import accelerate
from lora_lightning.models.memory import Setting
from lora_lightning.models.source import Source
from lora_lightning.train.module import Batch, LoraTraining

DEV = {"num_layers": 19, "num_single_layers": 38, "guidance_embeds": True}
TINY = {
    "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16, "num_attention_heads": 4,
    "joint_attention_dim": 32, "pooled_projection_dim": 32, "guidance_embeds": True, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip
GIB = 2**30
CONFIGS = Path(lora_lightning.models.__path__[0]) / "configs"


class Bench:
    """One model on one device, and the rows measured with it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = choose_device() if options.device == "cuda" else torch.device("cpu")
        self.cuda = self.device.type == "cuda"
        self.rows: list[dict[str, Any]] = []
        self.started = time.monotonic()

    def build(
        self,
        *,
        quantize: str = "none",
        dtype: torch.dtype = torch.bfloat16,
        optimizer: str = "adamw",
        **config: Any,
    ) -> LoraTraining:
        """A transformer of random weights, its adapter (rank 16, all linears) and the training step around it."""
        torch._dynamo.reset()
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
        shutil.copy(CONFIGS / "dev" / "model_index.json", folder)
        family = Flux1(Source(folder), self.device, dtype)
        lora.inject(transformer, rank=16, alpha=16.0, targets=family.lora_targets["all"], seed=0)
        for name, weight in lora.trainable(transformer).items():
            if ".lora_B." in name:
                nn.init.normal_(weight, std=0.02)
        return LoraTraining(family, transformer, optimizer=optimizer, learning_rate=1e-4, max_gradient_norm=1.0)

    def _fill(self, module: nn.Module, dtype: torch.dtype) -> None:
        for owner in module.modules():
            for name, weight in owner._parameters.items():
                if weight is not None and weight.is_meta:
                    real = torch.empty(weight.shape, dtype=torch.float32, device=self.device)
                    nn.init.normal_(real, mean=1.0 if isinstance(owner, nn.RMSNorm) else 0.0, std=0.02)
                    owner._parameters[name] = nn.Parameter(real.bfloat16().to(dtype), requires_grad=False)

    def batches(self, height: int, count: int = 4, width: int = 0) -> list[Batch]:
        """Random batches of one picture, square unless its width is given, and 512 text tokens."""
        config = TINY if self.options.tiny else DEV
        rows, columns = (side // (128 if self.options.tiny else 8) for side in (height, width or height))
        texts = (32, 32, 32) if self.options.tiny else (512, 4096, 768)
        generator = torch.Generator(self.device).manual_seed(len(config))

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=self.device)

        return [
            Batch(
                normal(1, 16, rows, columns),
                normal(1, 16, rows, columns),
                torch.sigmoid(normal(1)),
                TextEmbedding(normal(1, *texts[:2]).bfloat16(), normal(1, texts[2]).bfloat16()),
            )
            for _ in range(count)
        ]

    def measure(
        self, name: str, module: LoraTraining, side: int, setting: Setting, *, cap: float = 0, steps: int = 0
    ) -> None:
        """Time steps by `setting`, draw under it, and note the row; one that does not fit is noted as such.

        Args:
            name: of the row.
            module: built with the setting's storage of the base.
            side: of the picture, in pixels.
            setting: how a step is run.
            cap: GiB that the process may have, as on a smaller card; 0 for all.
            steps: how many; 0 for as many as the command says.
        """
        steps = steps or self.options.steps
        self._follow(module, setting)
        self._reset_memory()
        row: dict[str, Any] = {"row": name, "side": side, "setting": asdict(setting), "optimizer": module.optimizer}
        row |= {"cap_gib": cap} if cap else {}
        try:
            self.cap(cap)
            self.note(row | self._figures(module, side, setting, steps))
        except Exception as error:  # the other rows are worth having
            if not isinstance(error, torch.OutOfMemoryError):
                traceback.print_exc()
            self.note(row | {"error": str(error).strip().splitlines()[0][:120]} | self.peaks())
        finally:
            self.cap(0)

    def _figures(self, module: LoraTraining, side: int, setting: Setting, steps: int) -> dict[str, Any]:
        began = time.monotonic()
        step = Step(module, self.batches(side), setting.graph)
        for _ in range(3):
            step()
        self.wait()
        prepared = time.monotonic() - began
        seconds = self.times(step, steps)
        figures = {"s_per_step": round(statistics.median(seconds), 4), "n": steps}
        figures |= {"min": round(min(seconds), 4), "max": round(max(seconds), 4), "prepare_s": round(prepared, 1)}
        figures |= self.peaks() | {"loss": round(step.loss.item(), 4)}
        if setting.fast and self.cuda:
            step.release()
            self._reset_memory()
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
                for batch in self.batches(side, 2):
                    module.losses(batch)
            figures["drawing_gib"] = self.peaks()["peak_gib"]
        return figures

    def peaks(self) -> dict[str, float]:
        """GiB: what tensors took at most, what torch held for them, and what the process took of the host's memory."""
        if not self.cuda:
            return {}
        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        allocated, reserved = torch.cuda.max_memory_allocated() / GIB, torch.cuda.max_memory_reserved() / GIB
        return {"peak_gib": round(allocated, 2), "reserved_gib": round(reserved, 2), "host_gib": round(host, 1)}

    def _follow(self, module: LoraTraining, setting: Setting) -> None:
        held = getattr(module.transformer.forward, "plan", None)
        if setting.fast and held != setting.plan:
            accelerate(module.transformer, setting.plan)

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

    def cap(self, gib: float) -> None:
        """Let the process have no more memory than this, as on a smaller card; 0 for all."""
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

    @torch.no_grad()
    def peak_of(self, use: Callable[..., Any], *arguments: Any) -> float:
        """GiB that it takes at most."""
        self._reset_memory()
        use(*arguments)
        return self.peaks().get("peak_gib", 0.0)

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
        self.graph = GraphedLoss(self._loss, list(module.trainable.values())) if graph and cuda else None
        self.loss = torch.zeros(())

    def release(self) -> None:
        """Give back what only steps need."""
        self.optimizer.zero_grad()
        if self.graph:
            self.graph.release()

    def _loss(self, batch: Batch) -> Tensor:
        with torch.autocast(self.module.family.device.type, torch.bfloat16, cache_enabled=False):
            return self.module.losses(batch).mean

    def __call__(self) -> None:
        """Make it."""
        self.loss = (self.graph or self._loss)(self.batches[self.count % len(self.batches)])
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
