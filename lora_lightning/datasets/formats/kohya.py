"""For kohya-ss/sd-scripts: `flux_train_network.py --dataset_config OUTPUT/dataset.toml`.

    OUTPUT/dataset.toml  images/1_NAME/0001.png  images/1_NAME/0001.txt ...

The folder's name (repeats, class tokens) also fits the layout of older interfaces:
`--train_data_dir OUTPUT/images --caption_extension .txt`.

A picture without a caption gets no text file, because an empty one stops sd-scripts with an assertion; it is trained
with `class_tokens` of dataset.toml, which is empty until the user writes the trigger word there. sd-scripts reads the
first line of a caption only, and no EXIF; it looks for `.caption` unless told `.txt`.

Source: sd-scripts 48d368f, library/train_util.py (read_caption, load_dreambooth_dir), library/config_util.py.
"""

import json
import tomllib
from pathlib import Path

from lora_lightning.datasets.formats._pictures import files, new_folder, write_captions, write_pictures
from lora_lightning.datasets.formats._reading import Seen, first_line, pictures_in, seen, text_beside
from lora_lightning.datasets.store import Dataset

TITLE = "kohya sd-scripts"
NOTE = "dataset.toml names this folder: when it moves, correct image_dir. sd-scripts reads no EXIF; none is left."
WITHOUT_CAPTION = "they train with class_tokens of dataset.toml, which is empty until you write the trigger word there"
TEMPLATE = """\
# Dataset for sd-scripts: accelerate launch flux_train_network.py --dataset_config dataset.toml ...
# When this folder moves, correct image_dir.

[general]
caption_extension = ".txt"
enable_bucket = true
bucket_no_upscale = true

[[datasets]]
resolution = [1024, 1024]
batch_size = 1

[[datasets.subsets]]
image_dir = {image_dir}
num_repeats = 1
class_tokens = ""  # the caption of pictures without a .txt; the trigger word, for instance
"""


def export(dataset: Dataset, output: Path) -> list[Path]:
    """Write the dataset into the new folder `output`.

    Raises:
        InputError: the folder is taken.
        DatasetError: the dataset is empty, or a picture in it is damaged.
    """
    with new_folder(output) as folder:
        images = Path("images", f"1_{dataset.name}")
        rows = write_pictures(dataset, folder / images)
        write_captions(rows, folder / images)
        toml = TEMPLATE.format(image_dir=_toml_string(str(output.absolute() / images)))
        (folder / "dataset.toml").write_text(toml, encoding="utf-8")
    return files(output)


def read(output: Path) -> list[Seen]:
    """The dataset as sd-scripts loads it: the first line of each text file, else the class tokens."""
    config = tomllib.loads((output / "dataset.toml").read_text("utf-8"))
    (subset,) = config["datasets"][0]["subsets"]
    folder = Path(subset["image_dir"])
    return [seen(path, first_line(text_beside(path), subset["class_tokens"])) for path in pictures_in(folder)]


def _toml_string(text: str) -> str:
    """A TOML basic string: JSON's, except that DEL must be escaped too (TOML 1.0, section String)."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
