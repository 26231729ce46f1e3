"""Draw every concept in every style once (CPU, build time only) into one RGBA atlas.

Sources are npm packages under Apache-2.0 and MIT (see ../NOTICE). Needs `resvg_py`; nothing here runs in the product.
Shapes: S styles, N drawings (known concepts first, then nameless ones), P = 96 pixels; atlas is u8 [S, N, P, P, 4].
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .concepts import STYLES, unknown_labels, wanted

SIZE = 96
PACKAGES = {
    "glossy": "@iconify-json/noto@1.2.9",
    "flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "soft": "@iconify-json/fluent-emoji@1.2.7",
    "ink": "@iconify-json/fluent-emoji-high-contrast@1.2.6",
    "fx": "@iconify-json/fxemoji@1.2.2",
    "retro": "@iconify-json/noto-v1@1.2.5",
}
LABELS = "emojibase-data@17.0.0"
# fxemoji draws some animals as a face and as a body: take the body, as the other sets do.
FX_NAMES = {
    "car": "automobile",
    "dice": "gamedie",
    "hot pepper": "chilipepper",
    "cat": "catside",
    "dog": "dogside",
    "pig": "pigside",
    "tiger": "tigerside",
    "mouse": "mouseside",
    "leopard": "leopardside",
}


@dataclass(frozen=True)
class Atlas:
    """Pictures of every drawing; `words` names the first len(words) of them, the others stay nameless."""

    images: np.ndarray  # u8 [S, N, P, P, 4]
    present: np.ndarray  # bool [S, N]
    words: list[str]

    @classmethod
    def load(cls, path: Path) -> Atlas:
        """Read an .npz."""
        with np.load(path) as stored:
            return cls(stored["images"], stored["present"], [str(word) for word in stored["words"]])

    def save(self, path: Path) -> None:
        """Write an .npz."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, images=self.images, present=self.present, words=np.array(self.words))


def fetch(folder: Path) -> None:
    """`npm pack` every source package into `folder` (skipped where it is already there)."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in [*PACKAGES.values(), LABELS]:
        target = folder / folder_name(package)
        if target.exists():
            continue
        run = subprocess.run(
            ["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True
        )
        with tarfile.open(folder / run.stdout.strip().splitlines()[-1]) as archive:
            archive.extractall(target, filter="data")


def folder_name(package: str) -> str:
    """The folder that a package is unpacked to."""
    return package.replace("@", "_").replace("/", "_").strip("_")


class _IconSet:
    def __init__(self, folder: Path, package: str) -> None:
        root = folder / folder_name(package) / "package"
        self.data = json.loads((root / "icons.json").read_text())
        characters = root / "chars.json"
        self.characters = json.loads(characters.read_text()) if characters.exists() else {}

    def svg(self, name: str) -> str:
        icon = self.data["icons"][name]
        width, height = (icon.get(side, self.data.get(side, 16)) for side in ("width", "height"))
        body = icon["body"].replace("currentColor", "#111111")
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}">{body}</svg>'
        )


def _icon_name(style: str, sets: dict[str, _IconSet], label: str, code: str) -> str | None:
    """The icon that draws `label` (Unicode `code`) in a style's set, or None."""
    slugs = [
        icons.characters.get(key)
        for icons in (sets["glossy"], sets["flat"])
        for key in (code, code.replace("-fe0f", ""))
    ]
    if style in ("glossy", "flat", "ink"):
        names = [sets[style].characters.get(key) for key in (code, code.replace("-fe0f", ""))]
    elif style == "fx":
        names = [
            FX_NAMES.get(label),
            re.sub("[^a-z0-9]", "", label.lower()),
            *((s or "").replace("-", "") for s in slugs),
        ]
    else:
        names = slugs
    return next((name for name in names if name and name in sets[style].data["icons"]), None)


def _render(svg: str) -> np.ndarray:
    """One SVG -> u8 [P, P, 4], drawn at twice the size and scaled to fill the cell's longer side."""
    import resvg_py

    picture = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE * 2, height=SIZE * 2))))
    picture = picture.convert("RGBA")
    box = picture.getchannel("A").point(lambda alpha: 255 if alpha > 16 else 0).getbbox()
    if box is None:
        return np.zeros((SIZE, SIZE, 4), np.uint8)
    picture = picture.crop(box)
    scale = (SIZE - 4) / max(picture.size)
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
    cell = Image.new("RGBA", (SIZE, SIZE))
    cell.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
    return np.asarray(cell)


def draw(folder: Path) -> Atlas:
    """Render all drawings of all styles from the fetched packages."""
    labels = json.loads((folder / folder_name(LABELS) / "package/en/data.json").read_text())
    codes = {entry["label"]: entry["hexcode"].lower() for entry in labels}
    sets = {style: _IconSet(folder, package) for style, package in PACKAGES.items()}
    known = wanted()
    names = [label for label, _ in known] + unknown_labels()
    images = np.zeros((len(STYLES), len(names), SIZE, SIZE, 4), np.uint8)
    present = np.zeros(images.shape[:2], bool)
    for row, style in enumerate(STYLES):
        for column, label in enumerate(names):
            icon = _icon_name(style, sets, label, codes[label])
            if icon is not None:
                images[row, column] = _render(sets[style].svg(icon))
                present[row, column] = images[row, column, ..., 3].any()
    return Atlas(images, present, [word for _, word in known])
