"""An import in a process of its own, told by its arguments how to fail: HOME SOURCES [KIND AT].

KIND `kill` ends the process by SIGKILL at the AT-th of the moments named in MOMENTS; `full` makes the AT-th copied
picture lie on /dev/full; `limit` lets no file grow beyond AT bytes.
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path

from lora_lightning.datasets import importing, staging
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import LoraLightningError
from lora_lightning.workspace import Workspace


def die_at(wanted: int) -> None:
    """Kill this process just before the `wanted`-th step of the commit."""
    count = 0

    def counted(step):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == wanted:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments, **options)

        return call

    importing.os.replace = counted(os.replace)
    importing.sync = counted(importing.sync)
    importing.Dataset.add = counted(Dataset.add)
    staging.Staging.publish = counted(staging.Staging.publish)


def fill_disk_at(wanted: int) -> None:
    """The `wanted`-th copied picture meets the kernel's own ENOSPC."""
    opened = Path.open

    def open_or_full(self, *arguments, **options):
        if self.name == f"incoming-{wanted}" and arguments == ("xb",):
            return opened(Path("/dev/full"), "wb")
        return opened(self, *arguments, **options)

    Path.open = open_or_full


home, sources, *fault = sys.argv[1:]
if fault:
    kind, at = fault[0], int(fault[1])
    if kind == "kill":
        die_at(at)
    elif kind == "full":
        fill_disk_at(at)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (at, at))
print("go", flush=True)
try:
    report = import_sources(Workspace.find(home), "x", [Path(source) for source in sources.split(":")])
except LoraLightningError as error:
    print(json.dumps(error.as_dict()))
    sys.exit(error.exit_code)
print(json.dumps(report.as_dict()))
