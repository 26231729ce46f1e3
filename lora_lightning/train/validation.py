"""The loss on held-out pictures: always the same pictures, noise and sigmas, so that two steps differ by the weights.

Shapes: U units (picture, noise), S sigmas.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lora_lightning.models.device import isolated_rng
from lora_lightning.train.datamodule import Batches, read_entry
from lora_lightning.train.encode import Entry, Item
from lora_lightning.train.module import Batch, LoraTraining
from lora_lightning.train.ranks import Ranks
from lora_lightning.train.timesteps import Timesteps
from lora_lightning.train.window import Record

SIGMAS = (0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.9, 0.97)
NOISES = 2


class HeldOut:
    """Losses on triples (picture, noise, sigma) that never change; each picture at its smallest size, as it is.

    Args:
        items: the held-out pictures, in order.
        seed: of the noise.
        batch_size: most samples in a forward pass: what training has room for.
        load: reads an entry of the cache.
        ranks: the processes that share the work.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        seed: int,
        batch_size: int,
        load: Callable[[Entry], dict[str, Tensor]] = read_entry,
        ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    ) -> None:
        self.pictures = [_plain(item) for item in _smallest(items)]
        self.batch_size, self.ranks = batch_size, ranks
        self._batches = [
            Batches([item], batch_size=1, seed=seed, timesteps=Timesteps("uniform"), load=load)
            for item in self.pictures
        ]

    def losses(self, module: LoraTraining) -> npt.NDArray[np.float64]:
        """The loss of every triple, with the adapter as it is now; training goes on as if nothing had happened."""
        training, device = module.transformer.training, module.family.device
        mixed = torch.autocast(device.type, torch.bfloat16, enabled=module.family.dtype == torch.bfloat16)
        module.transformer.eval()
        try:
            with isolated_rng(), torch.no_grad(), mixed:
                units = [(batches, noise) for batches in self._batches for noise in range(NOISES)]
                # As many for each: where the base is in shards, a forward pass needs all processes.
                even = [units[n % len(units)] for n in range(len(units) + -len(units) % self.ranks.count)]
                mine = [self._unit(module, batches[noise], device) for batches, noise in self.ranks.share(even)]
        finally:
            module.transformer.train(training)
        found = np.empty((len(even), len(SIGMAS)))
        for number, losses in enumerate(self.ranks.gather(mine)):
            found[number :: self.ranks.count] = np.reshape(losses, (-1, len(SIGMAS)))
        return found[: len(units)]

    def _unit(self, module: LoraTraining, sample: Batch, device: torch.device) -> list[float]:
        losses: list[float] = []
        for start in range(0, len(SIGMAS), self.batch_size):
            sigmas = torch.tensor(SIGMAS[start : start + self.batch_size])
            batch = apply_to_collection(sample, Tensor, _repeated, len(sigmas))._replace(sigma_B=sigmas)
            losses += module.losses(move_data_to_device(batch, device)).each_B.tolist()
        return losses


def look(module: LoraTraining, held_out: HeldOut, record: Record, step: int) -> None:
    """Measure the weights that a step would be saved with."""
    with module.evaluated():
        record.add(step, list(SIGMAS), held_out.losses(module))


def _smallest(items: Sequence[Item]) -> list[Item]:
    """One item a picture, that of its smallest bucket."""
    found: dict[str, Item] = {}
    for item in sorted(items, key=lambda item: item.bucket.tokens, reverse=True):
        found[item.file] = item
    return [found[file] for file in sorted(found)]


def _plain(item: Item) -> Item:
    """Without anything that is drawn anew each time."""
    return replace(item, views=item.views[:1], captions=(item.captions[0][:1],), repeats=1, weight=1.0)


def _repeated(tensor_1: Tensor, count: int) -> Tensor:
    return tensor_1.expand(count, *tensor_1.shape[1:])
