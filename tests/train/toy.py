"""The smallest training that is a real one: a transformer of FLUX's class that makes a step in a few milliseconds."""

from dataclasses import replace
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel

from lora_lightning.datasets.buckets import Bucket, crop_box
from lora_lightning.datasets.crops import View
from lora_lightning.models import lora
from lora_lightning.runs.callback import Report
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.reporter import Reporter
from lora_lightning.train.cache import Cache, read
from lora_lightning.train.callbacks.checkpoint import Checkpoints
from lora_lightning.train.checkpoints import AtomicCheckpointIO, newest, path_of
from lora_lightning.train.datamodule import Batches
from lora_lightning.train.encode import ImageEntry, Item, TextEntry
from lora_lightning.train.fit import Rhythm, fit
from lora_lightning.train.module import LoraTraining
from lora_lightning.train.ranks import Ranks
from lora_lightning.train.timesteps import Timesteps

BUCKETS = [Bucket(32, 32)] * 4 + [Bucket(48, 32)] * 3


def items(folder: Path) -> list[Item]:
    """Seven pictures of two sizes with random latents, `0.png` to `6.png`."""
    cache, generator, found = Cache(folder), torch.Generator().manual_seed(3), []

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    for number, bucket in enumerate(BUCKETS):
        shape = (1, 16, bucket.height // 8, bucket.width // 8)
        image, text = cache.path("latents", of=number), cache.path("texts", of=number)
        latents = {"mean": normal(*shape), "std": torch.full(shape, 0.1)}
        cache.ensure(image, lambda latents=latents: latents)
        embedded = {"sequence": normal(1, 8, 32), "pooled": normal(1, 32)}
        cache.ensure(text, lambda embedded=embedded: embedded)
        view = View(crop_box(100, 100, bucket))
        entry = ImageEntry(image, Path(f"{number}.png"), f"{number:064}", view)
        found.append(Item(bucket, (entry,), ((TextEntry(text, f"caption {number}"),),)))
    return found


def altered(item: Item, folder: Path, change) -> Item:
    """The picture with other latents: `change` of each of its tensors."""
    (view,) = item.views
    cache = Cache(folder)
    path = cache.path("latents", of=str(view.path))
    cache.ensure(path, lambda: {name: change(tensor) for name, tensor in read(view.path).items()})
    return replace(item, views=(replace(view, path=path),))


def transformer(dropout: float = 0.1, targets: str = r".*\.attn\.to_[qkv]") -> FluxTransformer2DModel:
    """One block of each kind, with an adapter of rank 4 that is not the base any more."""
    torch.manual_seed(0)
    model = FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, guidance_embeds=True, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    lora.inject(model, rank=4, alpha=4.0, targets=targets, seed=0, dropout=dropout)
    return model


class Toy:
    """Trains in a folder, from its newest checkpoint or from a given one."""

    def __init__(self, family, pictures):
        self.family, self.pictures = family, pictures

    def module(self, *, adapter=None, **options):
        defaults = {"optimizer": "adamw", "learning_rate": 1e-2, "max_gradient_norm": 0.5}
        return LoraTraining(self.family, transformer(**adapter or {}), **(defaults | options))

    def fit(
        self,
        folder,
        *callbacks,
        steps,
        accumulate=1,
        workers=0,
        every=1,
        checkpoint=None,
        also=(),
        module=None,
        batch_size=2,
        reporter=None,
        ranks=Ranks(),  # noqa: B008 - frozen
        **options,
    ):
        """Returns the module as the last step left it."""
        folder.mkdir(exist_ok=True, parents=True)
        module = module or self.module(**options)
        torch.manual_seed(len(list(folder.iterdir())))  # random numbers drawn elsewhere must not matter
        batches = Batches(self.pictures, batch_size=batch_size, seed=5, timesteps=Timesteps())
        report = Report(
            reporter or Reporter(RunFolder(folder)), "training", figures=module.figures, gather=ranks.gather
        )
        saving = Checkpoints(report, every, spare=lambda: range(10_000), ranks=ranks)
        made = [callback(report) for callback in also]
        rhythm = Rhythm(steps, accumulate, "32-true", workers)
        start = checkpoint or newest(report.reporter.run.checkpoints)
        fit(module, batches, rhythm, report, [*callbacks, *made, saving], start, ranks)
        return module


def saved(folder: Path, step: int) -> dict:
    """A checkpoint of a run."""
    return AtomicCheckpointIO().load_checkpoint(path_of(RunFolder(folder).checkpoints, step))


def assert_same(one, other, where=""):
    """Equal to the last bit, through and through."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for place, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}.{place}")
    else:
        assert one == other, where
