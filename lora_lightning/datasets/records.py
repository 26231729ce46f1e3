"""The rows of a dataset, as the rest of the program sees them."""

from dataclasses import dataclass

from lora_lightning.datasets.kinds import CAPTION


@dataclass(frozen=True)
class Picture:
    """One picture with its current caption of one kind.

    Attributes:
        file: name inside DATASET/images/, such as `000001.3fa9c2d1.png`.
        name: the user's own file name, such as `beach.JPG`.
        sha256: of the original's bytes, in hex.
        width: pixels after EXIF rotation; `height` likewise.
        caption: one line, empty when there is none.
        version: of the caption, 0 when it never had one.
        author: "" | "human" | "import" | a captioner's name.
        aside: why it was set aside, empty when it is in use.
        focus_x: where crops are centred, as a share of the width from the left; `focus_y` of the height from the top.
        kind: of the caption, "caption" for the one that every trainer gets.
    """

    id: int
    file: str
    name: str
    sha256: str
    width: int
    height: int
    caption: str = ""
    version: int = 0
    author: str = ""
    aside: str = ""
    focus_x: float = 0.5
    focus_y: float = 0.5
    kind: str = CAPTION


@dataclass(frozen=True)
class CaptionVersion:
    """One version of a caption; `details` says how it came about, `written` is seconds since the epoch."""

    version: int
    text: str
    author: str
    details: dict[str, object]
    written: float
