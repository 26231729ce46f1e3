"""A dataset on the Hugging Face Hub: an image folder that `datasets.load_dataset` and the diffusers scripts open."""

import tempfile
from pathlib import Path

from lora_lightning.datasets import exporting
from lora_lightning.datasets.store import Dataset
from lora_lightning.publish.hub import Hub, Pushed

CARD = """\
---
task_categories: [text-to-image]
size_categories: [{size}]
---

# {name}

{pictures} pictures, {captions} of them with a caption (column `text`), for training a LoRA. Made with LoRA Lightning.

The licence of the pictures is not stated here: add it before you make this dataset public.
"""
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"))


def push(dataset: Dataset, repo: str, *, private: bool = True) -> Pushed:
    """Push a dataset as one commit, and look whether it arrived.

    Args:
        dataset: to push.
        repo: USER/NAME on the Hub; it is made when it does not exist.
        private: whether others may not see it.

    Raises:
        PublishError: nobody is logged in, or may not write there.
        DatasetError: the dataset is empty, or a picture in it is damaged.
        JobError: the Hub cannot be reached, or something did not arrive whole.
    """
    hub = Hub("dataset")
    with tempfile.TemporaryDirectory(prefix="lora-lightning-") as temporary:
        folder = Path(temporary) / "dataset"
        done = exporting.export(dataset, "diffusers", folder)
        size = next((size for limit, size in _SIZES if done.pictures < limit), "10K<n<100K")
        card = CARD.format(name=dataset.name, size=size, pictures=done.pictures, captions=done.captions)
        files: dict[str, Path | bytes] = {"README.md": card.encode()}
        files |= {path.relative_to(folder).as_posix(): path for path in done.files}
        hub.prepare(repo, private=private)
        pushed = hub.push(repo, files, f"{done.pictures} pictures with captions")
        hub.check(repo, files)
    return pushed
