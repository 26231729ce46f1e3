"""Reading the cache while training: an entry that was damaged since it was filled is made again."""

import logging
from collections.abc import Callable

from torch import Tensor

from lora_lightning.errors import JobError
from lora_lightning.models.base import Family
from lora_lightning.train.cache import Cache, read
from lora_lightning.train.encode import Entry

log = logging.getLogger("lora_lightning")


class Mender:
    """Reads entries of the cache; one that was damaged since it was filled is made again.

    On the CPU: the device is the training's, and the processes of a loader cannot use it.

    Args:
        cache: where entries are kept.
        open_family: the base model, on the CPU.
    """

    def __init__(self, cache: Cache, open_family: Callable[[], Family]) -> None:
        self._cache, self._open_family = cache, open_family

    def __call__(self, entry: Entry) -> dict[str, Tensor]:
        """The tensors of an entry."""
        try:
            return read(entry.path)
        except JobError as error:
            log.warning("%s; it is made again on the CPU", error.message)
        family = self._open_family()
        self._cache.ensure(entry.path, lambda: entry.make(family))
        return read(entry.path)
