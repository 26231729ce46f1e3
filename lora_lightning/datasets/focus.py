"""Where a picture's crops are centred, when its middle is not what matters; the picture itself stays as it is."""

from lora_lightning.datasets import schema
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.errors import InputError


def move(dataset: Dataset, id: int, x: float, y: float) -> Picture:
    """Centre a picture's crops on a point, as far as its edges allow.

    Args:
        dataset: of the picture.
        id: of the picture.
        x: share of the width from the left, 0 to 1.
        y: share of the height from the top, 0 to 1.

    Raises:
        InputError: the point is outside the picture.
        DatasetError: there is no such picture.
    """
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise InputError(f"the point ({x:g}, {y:g}) is outside the picture", "Give shares from 0 to 1.")
    dataset.picture(id)
    with schema.transaction(dataset.database) as db:
        db.execute("DELETE FROM focus WHERE picture = ?", (id,))
        if (x, y) != (0.5, 0.5):
            db.execute("INSERT INTO focus VALUES (?, ?, ?)", (id, x, y))
    return dataset.picture(id)
