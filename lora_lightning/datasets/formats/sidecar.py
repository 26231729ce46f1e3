"""Pictures under their own names with their captions beside them: `beach.jpg` and `beach.txt`, for any tool.

Names become ASCII and differ whatever the case and the suffix. A picture that every reader sees alike is copied byte
for byte, any other is written as the PNG that it is trained as. A picture without a caption gets no text file. For a
certain trainer its own format is the better choice.
"""

from collections.abc import Sequence
from pathlib import Path

from lora_lightning.datasets.formats._pictures import Row, files, new_folder, write_captions, write_picture
from lora_lightning.datasets.formats._reading import Seen, pictures_in, seen, text_beside
from lora_lightning.datasets.names import portable_stems
from lora_lightning.datasets.store import Dataset, Picture

TITLE = "Pictures with text files, under their own names"
NOTE = ""
WITHOUT_CAPTION = "they get no text file"


def export(dataset: Dataset, output: Path) -> list[Path]:
    """Write the dataset into the new folder `output`, whole or not at all.

    Raises:
        InputError: the folder is taken.
        DatasetError: a picture is gone or damaged.
    """
    pictures = dataset.pictures()
    with new_folder(output) as folder:
        rows = [
            Row(write_picture(dataset.path(picture), folder, stem), picture.caption)
            for picture, stem in zip(pictures, stems(pictures), strict=True)
        ]
        write_captions(rows, folder)
    return files(output)


def stems(pictures: Sequence[Picture]) -> list[str]:
    """What the files are called, without their suffixes."""
    return portable_stems(picture.name for picture in pictures)


def read(output: Path) -> list[Seen]:
    """The dataset as programs read it that take the whole text beside a picture."""
    return [seen(path, text_beside(path) or "") for path in pictures_in(output)]
