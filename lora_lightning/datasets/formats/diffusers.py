"""For the training scripts of diffusers: an image folder of the `datasets` library.

    OUTPUT/metadata.jsonl  0001.png ...

    train_dreambooth_lora_flux.py --dataset_name OUTPUT --image_column image --caption_column text --instance_prompt ...

Without `--caption_column text` the script silently trains every picture with its `--instance_prompt`. A picture
without a caption has the empty text, for which the script takes that prompt too. Where the dataset has short captions
or tags, they are the columns `short` and `tags`.

Source: diffusers 58eb52c, examples/dreambooth/train_dreambooth_lora_flux.py (DreamBoothDataset).
"""

import json
from pathlib import Path

from lora_lightning.datasets import alternates
from lora_lightning.datasets.formats._pictures import files, new_folder, write_pictures
from lora_lightning.datasets.formats._reading import Seen, seen
from lora_lightning.datasets.kinds import USUAL
from lora_lightning.datasets.store import Dataset

TITLE = "diffusers scripts and the Hub (image folder)"
NOTE = "Give the script --caption_column text; without it every picture is trained on the instance prompt alone."
WITHOUT_CAPTION = "they train with the instance prompt"


def export(dataset: Dataset, output: Path) -> list[Path]:
    """Write the dataset into the new folder `output`.

    Raises:
        InputError: the folder is taken.
        DatasetError: the dataset is empty, or a picture in it is damaged.
    """
    with new_folder(output) as folder:
        rows = write_pictures(dataset, folder)
        others = alternates.current(dataset)
        kinds = [kind for kind in USUAL if any(kind in each for each in others.values())]
        lines = []
        for row, picture in zip(rows, dataset.pictures(), strict=True):
            own = others.get(picture.id, {})
            more = {kind: own[kind].text if kind in own else "" for kind in kinds}
            lines.append(json.dumps({"file_name": row.file, "text": row.caption} | more, ensure_ascii=False))
        (folder / "metadata.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return files(output)


def read(output: Path) -> list[Seen]:
    """The dataset as the `datasets` library builds it: one row a picture, from metadata.jsonl."""
    lines = (output / "metadata.jsonl").read_bytes().decode("utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    return [seen(output / row["file_name"], row["text"]) for row in rows]
