"""Captions a second of JoyCaption's architecture at full size: ours against a plain loop of batched `generate` calls.

    python -m benchmarks.caption_gpu [--sizes 8 32] [--batches 4] [--output benchmarks/results] [--tiny]

Both run in this process on the same model: 8.5 B random weights in bf16, 384 px pictures (729 tokens of 790 in the
prompt), sampling at temperature 0.6 and top-p 0.9, up to 128 new tokens. `varying`: each caption has its own length,
even from 32 to 128, at which its row ends; `fixed`: all have 128. The plain loop is that of JoyCaption's own script
(fpgaminer/joycaption, scripts/batch-caption.py) and gets its pixels prepared for nothing; ours prepares them from
pictures of a megapixel in its own threads. Clocks start after a short batch of warming up. --tiny: a small model, for a
try on a CPU (with OMP_WAIT_POLICY=PASSIVE in the environment).
"""

import argparse
import json
import platform
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    BatchFeature,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LogitsProcessor,
    LogitsProcessorList,
    SiglipVisionConfig,
)

from lora_lightning.caption.base import Request, Sampling
from lora_lightning.caption.decoder import Decoder
from lora_lightning.caption.streams import Rows

TEXT_TOKENS = 61
EOS = 9
WARM_UP_TOKENS = 8


@dataclass(frozen=True)
class Shape:
    """The size of everything."""

    text: dict[str, object]
    vision: dict[str, object]
    most_tokens: int
    least_tokens: int

    @property
    def picture_tokens(self) -> int:
        """Patches of one picture."""
        return (int(str(self.vision["image_size"])) // int(str(self.vision["patch_size"]))) ** 2


FULL = Shape(
    text={
        "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
    },
    vision={
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
        "image_size": 384, "patch_size": 14, "vision_use_head": False,
    },
    most_tokens=128,
    least_tokens=32,
)  # fmt: skip
TINY = Shape(
    text={"vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
          "num_attention_heads": 4, "num_key_value_heads": 2},
    vision={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
            "image_size": 56, "patch_size": 14, "vision_use_head": False},
    most_tokens=16,
    least_tokens=4,
)  # fmt: skip


def build(shape: Shape, device: torch.device) -> LlavaForConditionalGeneration:
    """The model with random weights, made on the device."""
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(**shape.vision),
        text_config=LlamaConfig(**shape.text, bos_token_id=8, eos_token_id=EOS, pad_token_id=7),
        image_token_index=5,
        vision_feature_layer=-2,
        vision_feature_select_strategy="full",
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    with torch.device(device):
        model = LlavaForConditionalGeneration(config).eval()
    torch.set_default_dtype(torch.float32)
    model.generation_config = GenerationConfig(eos_token_id=EOS, pad_token_id=7, bos_token_id=8)
    return model


def ids(shape: Shape) -> Tensor:
    """A prompt (1L) with the places of one picture."""
    text = torch.randint(10, 250, (TEXT_TOKENS,), generator=torch.Generator().manual_seed(0))
    return torch.cat([text[:20], torch.full((shape.picture_tokens,), 5), text[20:]])[None]


def pixels(image: Image.Image, side: int) -> Tensor:
    """What SigLIP reads (13HW... one picture, three channels)."""
    small = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS), dtype=np.float32)
    return torch.from_numpy(small / 127.5 - 1).permute(2, 0, 1)[None]


class EndAt(LogitsProcessor):
    """Ends each row at a length of its own."""

    def __init__(self, start: int, lengths: Sequence[int]) -> None:
        self.start, self.lengths = start, torch.tensor(lengths)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Rule out the end, or everything else."""
        ended_B1 = (self.lengths.to(scores.device) <= input_ids.shape[1] - self.start + 1)[:, None]
        end_V = torch.arange(scores.shape[1], device=scores.device) == EOS
        return scores.masked_fill(ended_B1 != end_V, -torch.inf)


@dataclass(frozen=True)
class Work:
    """Pictures with the lengths of their captions."""

    images: list[Image.Image]
    lengths: list[int]


def plain(model: LlavaForConditionalGeneration, shape: Shape, work: Work, size: int) -> float:
    """Batch by batch with `generate`; returns the seconds."""
    prompt, side = ids(shape), int(str(shape.vision["image_size"]))
    prepared = torch.cat([pixels(image, side) for image in work.images])

    def caption(first: int, lengths: Sequence[int]) -> None:
        batch = prepared[first : first + size].to(model.device, model.dtype)
        prompts = prompt.repeat(len(batch), 1).to(model.device)
        written = model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            pixel_values=batch,
            max_new_tokens=max(lengths),
            do_sample=True,
            temperature=0.6,
            top_p=0.9,
            top_k=None,
            logits_processor=LogitsProcessorList([EndAt(prompts.shape[1], lengths)]),
        )
        written[:, prompts.shape[1] :].tolist()

    caption(0, [WARM_UP_TOKENS] * size)
    synchronize(model.device)
    started = time.perf_counter()
    for first in range(0, len(work.images), size):
        caption(first, work.lengths[first : first + size])
    synchronize(model.device)
    return time.perf_counter() - started


def ours(model: LlavaForConditionalGeneration, shape: Shape, work: Work, size: int) -> float:
    """Through the stream that caption jobs use; returns the seconds."""
    prompt, side = ids(shape), int(str(shape.vision["image_size"]))

    def prepare(request: Request) -> BatchFeature:
        return BatchFeature({"input_ids": prompt, "pixel_values": pixels(request.image, side)})

    stream = Rows(Decoder(model, size, graph=True), size, prepare, str, [EOS], model.device)

    def caption(images: Sequence[Image.Image], lengths: Sequence[int]) -> None:
        todo, told = list(enumerate(zip(images, lengths, strict=True))), 0
        while told < len(images):
            while todo and stream.free:
                key, (image, length) = todo.pop(0)
                stream.put(key, Request(image, "", key, Sampling(0.6, 0.9, length)))
            told += len(stream.step())

    caption(work.images[:size], [WARM_UP_TOKENS] * (size - 1) + [shape.most_tokens])
    synchronize(model.device)
    started = time.perf_counter()
    caption(work.images, work.lengths)
    synchronize(model.device)
    stream.close()
    return time.perf_counter() - started


def same_tokens(model: LlavaForConditionalGeneration, shape: Shape) -> dict[str, object]:
    """Whether greedy rows, recorded as a graph, write what they write unrecorded and what `generate` writes."""
    prompt, side = ids(shape), int(str(shape.vision["image_size"]))
    images, tokens = pictures(4, 1), 16
    prepared = [BatchFeature({"input_ids": prompt, "pixel_values": pixels(image, side)}) for image in images]
    found = []
    for graph in (True, False):
        decoder = Decoder(model, 4, graph=graph)
        with torch.inference_mode():
            steps = [decoder.begin(range(4), prepared, tokens).float().argmax(-1)]
            while len(steps) < tokens:
                decoder.write(steps[-1])
                steps.append(decoder.step().float().argmax(-1))
        found.append(torch.stack(steps, dim=1))
    batch = torch.cat([each["pixel_values"] for each in prepared]).to(model.device, model.dtype)
    written = model.generate(
        input_ids=prompt.repeat(4, 1).to(model.device),
        attention_mask=torch.ones(4, prompt.shape[1], dtype=torch.long, device=model.device),
        pixel_values=batch,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
    )[:, prompt.shape[1] :]
    return {
        "graph_equals_eager": bool((found[0] == found[1]).all()),
        "share_equal_to_generate": float((found[0] == written).float().mean()),
    }


def pictures(count: int, seed: int) -> list[Image.Image]:
    """Soft random patterns of a megapixel."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 16, 16, 3), np.uint8)
    return [Image.fromarray(each).resize((1024, 1024), Image.Resampling.BICUBIC) for each in small]


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Row:
    """One measurement."""

    loop: str
    lengths: str
    batch: int
    images: int
    seconds: float
    images_per_second: float
    tokens_per_second: float
    peak_memory_gib: float


def measure(
    loop: Callable[..., float], model: LlavaForConditionalGeneration, shape: Shape, work: Work, size: int, fixed: bool
) -> Row:
    """Run one loop, and say it."""
    gpu = model.device.type == "cuda"
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds = loop(model, shape, work, size)
    peak = torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0
    count = len(work.images)
    row = Row(loop.__name__, "fixed" if fixed else "varying", size, count, round(seconds, 2), round(count / seconds, 2),
              round(sum(work.lengths) / seconds, 1), round(peak, 2))  # fmt: skip
    print(json.dumps(asdict(row)), flush=True)
    return row


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)  # as models/device.py does
    shape = TINY if options.tiny else FULL
    started = time.perf_counter()
    model = build(shape, device)
    print(f"built in {time.perf_counter() - started:.1f} s", flush=True)
    same = same_tokens(model, shape)
    print(json.dumps(same), flush=True)
    rows = []
    for fixed in (False, True):
        for size in options.sizes:
            rng = random.Random(size)
            count = size * (2 if fixed else options.batches)
            least = shape.most_tokens if fixed else shape.least_tokens
            work = Work(pictures(count, size), [rng.randint(least, shape.most_tokens) for _ in range(count)])
            rows += [measure(loop, model, shape, work, size, fixed) for loop in (plain, ours)]
    import transformers

    machine = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor()
    result = {"machine": machine, "torch": torch.__version__, "transformers": transformers.__version__, **same}
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"caption_gpu-{date.today()}{'-tiny' if options.tiny else ''}.json"
    path.write_text(json.dumps(result | {"rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
