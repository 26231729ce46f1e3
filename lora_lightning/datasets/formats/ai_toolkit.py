"""For ostris/ai-toolkit: `python run.py OUTPUT/ai-toolkit.yaml`.

    OUTPUT/ai-toolkit.yaml  images/0001.png  images/0001.txt ...

A picture without a caption gets no text file and is trained with the empty caption (`default_caption` of the dataset,
which is not set). ai-toolkit reads the whole file as it is, and replaces `[trigger]` and `[name]` in it by its own
trigger word, or by nothing; the trigger is in the captions already, so the YAML sets no `trigger_word`.

Source: ai-toolkit 27a03a9, toolkit/dataloader_mixins.py, toolkit/prompt_utils.py,
config/examples/train_lora_flux_24gb.yaml.
"""

from pathlib import Path

import yaml

from lora_lightning.datasets.formats._pictures import files, new_folder, write_captions, write_pictures
from lora_lightning.datasets.formats._reading import Seen, pictures_in, seen, text_beside
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import DatasetError

TITLE = "ai-toolkit (ostris)"
NOTE = "The YAML names this folder: when it moves, correct folder_path. It sets no trigger_word."
WITHOUT_CAPTION = "they train with the empty caption"
PLACEHOLDERS = ("[trigger]", "[name]")


def export(dataset: Dataset, output: Path) -> list[Path]:
    """Write the dataset into the new folder `output`.

    Raises:
        InputError: the folder is taken.
        DatasetError: the dataset is empty, a picture in it is damaged, or ai-toolkit would change a caption.
    """
    _check_captions(dataset)
    with new_folder(output) as folder:
        rows = write_pictures(dataset, folder / "images")
        write_captions(rows, folder / "images")
        config = yaml.safe_dump(_config(dataset.name, output.absolute() / "images"), sort_keys=False)
        (folder / "ai-toolkit.yaml").write_text(config, encoding="utf-8")
    return files(output)


def read(output: Path) -> list[Seen]:
    """The dataset as ai-toolkit loads it: each text file from its first to its last byte."""
    config = yaml.safe_load((output / "ai-toolkit.yaml").read_text("utf-8"))
    (dataset,) = config["config"]["process"][0]["datasets"]
    return [seen(path, text_beside(path) or "") for path in pictures_in(Path(dataset["folder_path"]))]


def _check_captions(dataset: Dataset) -> None:
    for picture in dataset.pictures():
        for placeholder in PLACEHOLDERS:
            if placeholder in picture.caption:
                raise DatasetError(
                    f"the caption of {picture.name} contains {placeholder}, which ai-toolkit would replace",
                    "Write the trigger word itself, or other brackets, then export again.",
                )


def _config(name: str, images: Path) -> dict[str, object]:
    """A FLUX.1-dev LoRA job with the settings of ai-toolkit's own 24 GB example, without samples."""
    process = {
        "type": "sd_trainer",
        "training_folder": "output",
        "device": "cuda:0",
        "network": {"type": "lora", "linear": 16, "linear_alpha": 16},
        "save": {"dtype": "float16", "save_every": 250, "max_step_saves_to_keep": 4},
        "datasets": [
            {
                "folder_path": str(images),
                "caption_ext": "txt",
                "caption_dropout_rate": 0.05,
                "shuffle_tokens": False,
                "cache_latents_to_disk": True,
                "resolution": [512, 768, 1024],
            }
        ],
        "train": {
            "batch_size": 1,
            "steps": 2000,
            "gradient_accumulation_steps": 1,
            "train_unet": True,
            "train_text_encoder": False,
            "gradient_checkpointing": True,
            "noise_scheduler": "flowmatch",
            "optimizer": "adamw8bit",
            "lr": 1e-4,
            "disable_sampling": True,
            "ema_config": {"use_ema": True, "ema_decay": 0.99},
            "dtype": "bf16",
        },
        "model": {"name_or_path": "black-forest-labs/FLUX.1-dev", "is_flux": True, "quantize": True},
    }
    return {"job": "extension", "config": {"name": name, "process": [process]}}
