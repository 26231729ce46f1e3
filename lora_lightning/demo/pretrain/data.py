"""Stage `data` (CPU): the demo data sets, their ground truth and the manifest, from the atlas.

Three ZIPs of plain PNG pictures that import like any user's: two styles that flux-mini never saw, and one subject that
it never saw. `manifest.json` says what each picture shows and, for held-out objects, what the true style looks like.
"""

from __future__ import annotations

import io
import json
import random
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from ..world import captions
from ..world.compose import Batch, Painter
from ..world.concepts import HELD_OUT_COUNT, STYLES, unknown_labels
from ..world.scene import CELL_CENTRES, COLOUR_NAMES, LARGE, Scene, Thing, finish, put
from .common import Settings, World

PICTURES = 20
SUBJECT = "robot"
PLACES_SHOWN = [LARGE] * 12 + [0, 2, 3, 4, 5, 6, 7, 8]
TARGET = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class StyleSet:
    """One style to be learned by a LoRA."""

    name: str
    style: str
    trigger: str
    seed: int


STYLE_SETS = (StyleSet("ink-style", "ink", "inkmoji", 21), StyleSet("fx-style", "fx", "fxmoji", 22))


def held_out(world: World) -> list[int]:
    """The 24 concepts that no LoRA set shows; each has a true rendering in both target styles."""
    both = world.atlas.present[STYLES.index("ink")] & world.atlas.present[STYLES.index("fx")]
    return sorted(random.Random(24).sample([d for d in range(len(world.words)) if both[d]], HELD_OUT_COUNT))


def picture(tensor: torch.Tensor) -> Image.Image:
    """f32 [3, H, W] in [-1, 1] -> PIL."""
    return Image.fromarray(((tensor.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def run(settings: Settings) -> None:
    """Write data/: three ZIPs, the true renderings and the manifest."""
    world = World.load(settings.folder)
    painter, spared = Painter(world.atlas, "cpu"), held_out(world)
    reader = Reader(settings.folder / "models/captioner-mini")
    TARGET.mkdir(exist_ok=True)
    manifest = {each.name: _style_set(each, world, painter, spared, reader) for each in STYLE_SETS}
    manifest["subject"] = _subject_set(world, painter, spared)
    (TARGET / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(
        f"[data] {sum(p.stat().st_size for p in TARGET.rglob('*') if p.is_file()) / 1e3:.0f} kB in {TARGET}",
        flush=True,
    )


def _style_set(each: StyleSet, world: World, painter: Painter, spared: list[int], reader: Reader) -> dict[str, object]:
    pick, row = random.Random(each.seed), STYLES.index(each.style)
    usable = [d for d in range(len(world.words)) if world.atlas.present[row, d] and d not in spared]
    truths = [
        finish(pick, row, (put(pick, drawing, LARGE),), LARGE, background=0, colour=pick.randrange(10))
        for drawing in spared
    ]
    scenes = _readable(pick, row, usable, painter, world, reader)
    return {
        "file": f"{each.name}.zip",
        "kind": "style",
        "style": each.style,
        "trigger": each.trigger,
        "pictures": _zip(TARGET / f"{each.name}.zip", scenes, painter, world),
        "held_out": _truths(truths, painter, world, TARGET / "truth" / each.style),
    }


def _readable(
    pick: random.Random, row: int, usable: list[int], painter: Painter, world: World, reader: Reader
) -> list[Scene]:
    """Twenty scenes of different objects, each of which captioner-mini describes rightly.

    It reads styles that it never saw only in part; a demonstration is made of what it does read (README, Demo data): a
    zebra that is called a ram would teach the LoRA that rams are zebras.
    """
    colours = list(range(len(COLOUR_NAMES))) * 2
    pick.shuffle(colours)
    drawings = iter(pick.sample(usable, len(usable)))
    chosen: list[Scene] = []
    while len(chosen) < PICTURES:
        place, colour = PLACES_SHOWN[len(chosen)], colours[len(chosen)]
        some = [finish(pick, row, (put(pick, next(drawings), place),), place, colour=colour) for _ in range(4)]
        said = reader([picture(drawn) for drawn in painter.paint(Batch.of(some))])
        wanted = [captions.answer(scene, world.words, "short") for scene in some]
        chosen += [scene for scene, want, text in zip(some, wanted, said, strict=True) if text == want][:1]
    return chosen


class Reader:
    """captioner-mini with the demo's instruction: pictures -> captions."""

    def __init__(self, folder: Path) -> None:
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        asked = [{"role": "user", "content": "Write a short caption for this image."}]
        self.text = self.processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)

    @torch.no_grad()
    def __call__(self, pictures: list[Image.Image]) -> list[str]:
        """Greedy captions, one a picture."""
        inputs = self.processor(text=[self.text] * len(pictures), images=pictures, return_tensors="pt")
        out = self.model.generate(**inputs, max_new_tokens=48, do_sample=False)
        return self.processor.tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def _subject_set(world: World, painter: Painter, spared: list[int]) -> dict[str, object]:
    """The glossy robot, alone and beside known things."""
    pick, robot = random.Random(23), len(world.words) + unknown_labels().index(SUBJECT)
    usable = [d for d in range(len(world.words)) if d not in spared]
    scenes = []
    for index in range(16):
        if index % 4 == 3:
            things = (
                Thing(robot, CELL_CENTRES[0] - 2, 64, 58),
                Thing(pick.choice(usable), CELL_CENTRES[2] + 2, 64, 58),
            )
            scenes.append(finish(pick, 0, things, LARGE))
        else:
            place = LARGE if index % 2 else pick.randrange(9)
            scenes.append(finish(pick, 0, (put(pick, robot, place),), place))
    named = World(world.atlas, world.fillers)
    return {
        "file": "subject.zip",
        "kind": "subject",
        "style": "glossy",
        "trigger": "robomoji",
        "class": SUBJECT,
        "pictures": _zip(TARGET / "subject.zip", scenes, painter, named, subject=f"a {SUBJECT}"),
        "held_out": [
            {"concept": world.words[d], "prompt": f"a {SUBJECT} next to {captions.article(world.words[d])}"}
            for d in spared
        ],
    }


def _zip(
    path: Path, scenes: list[Scene], painter: Painter, world: World, subject: str | None = None
) -> dict[str, object]:
    """Write 0001.png ... and return what each of them shows."""
    shown = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index, (scene, drawn) in enumerate(zip(scenes, painter.paint(Batch.of(scenes)), strict=True), 1):
            data = io.BytesIO()
            picture(drawn).save(data, "PNG", optimize=True)
            entry = zipfile.ZipInfo(f"{index:04d}.png", (2026, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data.getvalue())
            shown[entry.filename] = _facts(scene, world, subject)
    return shown


def _facts(scene: Scene, world: World, subject: str | None = None) -> dict[str, str]:
    caption = captions.answer(scene, world.words, "short")
    if subject:
        caption = caption.replace("An object", subject[0].upper() + subject[1:], 1)
    drawing = scene.things[0].drawing
    return {
        "concept": world.words[drawing] if drawing < len(world.words) else SUBJECT,
        "caption": caption,
        "background": captions.backdrop(scene),
    }


def _truths(scenes: list[Scene], painter: Painter, world: World, folder: Path) -> list[dict[str, str]]:
    """True renderings of held-out objects, with the prompt that asks for the same picture."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for scene, drawn in zip(scenes, painter.paint(Batch.of(scenes)), strict=True):
        word = world.words[scene.things[0].drawing]
        path = folder / f"{word.replace(' ', '-')}.webp"
        picture(drawn).save(path, quality=85)
        rows.append(
            {
                "concept": word,
                "prompt": f"{captions.article(word)} on {captions.backdrop(scene)}",
                "truth": str(path.relative_to(TARGET)),
            }
        )
    return rows
