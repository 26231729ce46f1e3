"""For Nerogar/OneTrainer: choose OUTPUT/concepts.json as the concept file (`concept_file_name`).

    OUTPUT/concepts.json  images/0001.png  images/0001.txt ...

A picture without a caption gets no text file and is trained with the empty caption. Each line of a file is a caption
of its own, hence one line. The concept turns off the random flip, which is on by default and makes "left" wrong.

Source: OneTrainer 23df383, modules/util/config/ConceptConfig.py, modules/dataLoader/mixin/DataLoaderMgdsMixin.py
(opens the file in the system's own encoding, hence ASCII); mgds, pipelineModules/LoadMultipleTexts.py.
"""

import json
from pathlib import Path

from lora_lightning.datasets.formats._pictures import files, new_folder, write_captions, write_pictures
from lora_lightning.datasets.formats._reading import Seen, first_line, pictures_in, seen, text_beside
from lora_lightning.datasets.store import Dataset

TITLE = "OneTrainer"
NOTE = "concepts.json names this folder: when it moves, correct path."
WITHOUT_CAPTION = "they train with the empty caption"


def export(dataset: Dataset, output: Path) -> list[Path]:
    """Write the dataset into the new folder `output`.

    Raises:
        InputError: the folder is taken.
        DatasetError: the dataset is empty, or a picture in it is damaged.
    """
    with new_folder(output) as folder:
        rows = write_pictures(dataset, folder / "images")
        write_captions(rows, folder / "images")
        concept = {
            "__version": 1,
            "name": dataset.name,
            "path": str(output.absolute() / "images"),
            "enabled": True,
            "include_subdirectories": False,
            "image": {"enable_random_flip": False},
            "text": {"prompt_source": "sample"},
        }
        (folder / "concepts.json").write_text(json.dumps([concept], indent=2), encoding="ascii")
    return files(output)


def read(output: Path) -> list[Seen]:
    """The dataset as OneTrainer loads it: it draws among the lines of a text file, and there is one."""
    (concept,) = json.loads((output / "concepts.json").read_text("ascii"))
    return [seen(path, first_line(text_beside(path), "")) for path in pictures_in(Path(concept["path"]))]
