"""For bghira/SimpleTuner: `--data_backend_config=OUTPUT/multidatabackend.json`.

    OUTPUT/multidatabackend.json  images/0001.png  images/0001.txt ...

A picture without a caption gets an empty text file, which is read as the empty caption; without the file SimpleTuner
stops. Each line of a file is a caption of its own, hence one line. No picture is too small (`minimum_image_size` 0),
because SimpleTuner leaves those out that are. Its caches go below the folder in which it is started.

Source: SimpleTuner bc8e6ab, helpers/prompts.py (prepare_instance_prompt_from_textfile), documentation/DATALOADER.md.
"""

import json
from pathlib import Path

from lora_lightning.datasets.formats._pictures import files, new_folder, write_captions, write_pictures
from lora_lightning.datasets.formats._reading import Seen, first_line, pictures_in, seen
from lora_lightning.datasets.store import Dataset

TITLE = "SimpleTuner"
NOTE = "multidatabackend.json names this folder: when it moves, correct instance_data_dir."
WITHOUT_CAPTION = "they train with the empty caption"


def export(dataset: Dataset, output: Path) -> list[Path]:
    """Write the dataset into the new folder `output`.

    Raises:
        InputError: the folder is taken.
        DatasetError: the dataset is empty, or a picture in it is damaged.
    """
    with new_folder(output) as folder:
        rows = write_pictures(dataset, folder / "images")
        write_captions(rows, folder / "images", empty_files=True)
        config = json.dumps(_config(dataset.name, output.absolute() / "images"), indent=2)
        (folder / "multidatabackend.json").write_text(config, encoding="ascii")
    return files(output)


def read(output: Path) -> list[Seen]:
    """The dataset as SimpleTuner loads it: every picture needs its text file, be it an empty one."""
    pictures = json.loads((output / "multidatabackend.json").read_text("ascii"))[0]
    paths = pictures_in(Path(pictures["instance_data_dir"]))
    return [seen(path, first_line(path.with_suffix(".txt").read_text("utf-8"), "")) for path in paths]


def _config(name: str, images: Path) -> list[dict[str, object]]:
    """The pictures, and the cache of text embeddings that SimpleTuner wants beside them."""
    pictures = {
        "id": name,
        "type": "local",
        "dataset_type": "image",
        "instance_data_dir": str(images),
        "caption_strategy": "textfile",
        "metadata_backend": "discovery",
        "resolution": 1024,
        "resolution_type": "pixel_area",
        "minimum_image_size": 0,
        "crop": False,
        "repeats": 0,
        "cache_dir_vae": f"cache/vae/{name}",
    }
    texts = {
        "id": f"{name}-text-embeds",
        "type": "local",
        "dataset_type": "text_embeds",
        "default": True,
        "cache_dir": f"cache/text/{name}",
    }
    return [pictures, texts]
