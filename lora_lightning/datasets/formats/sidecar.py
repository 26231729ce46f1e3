"""Pictures under their own names with their captions beside them: `beach.jpg` and `beach.txt`, for any tool.

Names become ASCII and differ whatever the case and the suffix. A picture that every reader sees alike is copied byte
for byte, any other is written as the PNG that it is trained as. A picture without a caption gets no text file. For a
certain trainer its own format is the better choice.
"""

from pathlib import Path

from lora_lightning.datasets.formats._pictures import Row, files, new_folder, write_captions, write_picture
from lora_lightning.datasets.names import portable_stems
from lora_lightning.datasets.store import Dataset


def export(dataset: Dataset, output: Path) -> list[Path]:
    """Write the dataset into the new folder `output`, whole or not at all.

    Raises:
        InputError: the folder is taken.
        DatasetError: a picture is gone or damaged.
    """
    pictures = dataset.pictures()
    stems = portable_stems(picture.name for picture in pictures)
    with new_folder(output) as folder:
        rows = [
            Row(write_picture(dataset.path(picture), folder, stem), picture.caption)
            for picture, stem in zip(pictures, stems, strict=True)
        ]
        write_captions(rows, folder)
    return files(output)
