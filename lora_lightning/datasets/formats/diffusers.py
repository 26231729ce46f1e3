"""For the training scripts of diffusers: an image folder of the `datasets` library.

    OUTPUT/metadata.jsonl  0001.png ...

    train_dreambooth_lora_flux.py --dataset_name OUTPUT --image_column image --caption_column text --instance_prompt ...

Without `--caption_column text` the script silently trains every picture with its `--instance_prompt`. A picture
without a caption has the empty text, for which the script takes that prompt too.

Source: diffusers 58eb52c, examples/dreambooth/train_dreambooth_lora_flux.py (DreamBoothDataset).
"""

import json
from pathlib import Path

from lora_lightning.datasets.formats._pictures import files, new_folder, write_pictures
from lora_lightning.datasets.store import Dataset


def export(dataset: Dataset, output: Path) -> list[Path]:
    """Write the dataset into the new folder `output`.

    Raises:
        InputError: the folder is taken.
        DatasetError: the dataset is empty, or a picture in it is damaged.
    """
    with new_folder(output) as folder:
        rows = write_pictures(dataset, folder)
        lines = (json.dumps({"file_name": row.file, "text": row.caption}, ensure_ascii=False) for row in rows)
        (folder / "metadata.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return files(output)
