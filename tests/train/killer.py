"""`python -m tests.train.killer FLUX FOLDER STEPS KILLS`: trains straight, and again with kill -9 at random moments.

Every training is a process of its own, forked from one that has imported torch. Prints the kills made, as JSON.
"""

import json
import os
import random
import select
import signal
import sys
import time
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback

from lora_lightning.models.base import open_family
from lora_lightning.train.callbacks.guard import Guard
from lora_lightning.train.callbacks.pictures import PictureLosses
from tests.train.toy import Toy, items

warnings.filterwarnings("ignore")


class Ready(Callback):
    """Tells the parent that the steps begin."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def on_train_start(self, *_) -> None:
        os.write(self.pipe, b"r")


class Training:
    """One training process."""

    def __init__(self, toy: Toy, folder: Path, steps: int) -> None:
        self.ready, pipe = os.pipe()
        self.number = os.fork()
        if self.number == 0:
            also = [lambda _: Guard(str), lambda _: PictureLosses(folder / "pictures.jsonl", str)]
            toy.fit(folder, Ready(pipe), also=also, steps=steps, accumulate=2, every=3, ema_decay=0.9)
            os._exit(0)
        os.close(pipe)

    def wait(self) -> bool:
        """Until its end: whether it came to its end by itself."""
        ended = os.waitstatus_to_exitcode(os.waitpid(self.number, 0)[1])
        os.close(self.ready)
        assert ended in (0, -signal.SIGKILL), ended
        return ended == 0

    def kill(self, seconds: float, *, when_ready: bool) -> bool:
        """Kill it so many seconds after its start, or after its first step began: whether it was still alive."""
        if when_ready:
            select.select([self.ready], [], [])
        time.sleep(seconds)
        os.kill(self.number, signal.SIGKILL)
        return not self.wait()


def main(flux: str, folder: Path, steps: int, kills: int) -> None:
    torch.set_num_threads(1)
    family = open_family(flux, device=torch.device("cpu"), dtype=torch.float32)
    toy, draw = Toy(family, items(folder / "cache")), random.Random()
    straight = Training(toy, folder / "straight", steps)
    select.select([straight.ready], [], [])
    began = time.monotonic()
    assert straight.wait()
    mean_seconds = 0.5 * (time.monotonic() - began) / kills
    made = 0
    while made < kills:
        in_training = draw.random() < 0.8
        seconds = draw.uniform(0, 2 * mean_seconds) if in_training else draw.uniform(0, 0.3)
        if not Training(toy, folder / "killed", steps).kill(seconds, when_ready=in_training):
            break  # it was done before it could be killed
        made += 1
    assert Training(toy, folder / "killed", steps).wait()
    print(json.dumps(made))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
