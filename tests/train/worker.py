"""Several trainings at once, each in a process of its own, for the price of one import of torch.

`python worker.py HOME RECIPE HOME RECIPE ...` prints their process numbers, and when all have ended their exit codes.
"""

import json
import os
import sys

import torch

from lora_lightning import recipe
from lora_lightning.errors import LoraLightningError
from lora_lightning.runs.job import perform, reserve
from lora_lightning.train import job
from lora_lightning.workspace import Workspace


def work(home: str, path: str) -> int:
    torch.set_num_threads(1)
    wanted, workspace = recipe.load(path), Workspace.find(home)
    run = reserve(workspace, "train", wanted.name, wanted.to_yaml())
    try:
        perform(workspace, run, lambda reporter: job.run(wanted, workspace, reporter))
    except LoraLightningError as error:
        return error.exit_code
    return 0


def main() -> None:
    processes = []
    for home, path in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        process = os.fork()
        if process == 0:
            os._exit(work(home, path))
        processes.append(process)
    print(json.dumps(processes), flush=True)
    codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main()
