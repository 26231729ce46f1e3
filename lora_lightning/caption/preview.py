"""Some settings side by side on a few pictures; nothing is written to the dataset."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from lora_lightning.caption.config import PREVIEW_PICTURES
from lora_lightning.caption.module import CaptionModule, Result, Tools
from lora_lightning.caption.plan import Item, Pictures
from lora_lightning.caption.setting import Setting
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.models.device import choose_device
from lora_lightning.runs.reporter import Reporter


def sample(pictures: Sequence[Picture]) -> list[Picture]:
    """A few pictures from all over a dataset."""
    few = min(PREVIEW_PICTURES, len(pictures))
    return [pictures[place * len(pictures) // few] for place in range(few)]


def compare(
    compared: Sequence[Setting], dataset: Dataset, chosen: Sequence[Picture], reporter: Reporter
) -> dict[str, object]:
    """Describe a sample of pictures in several ways.

    Returns:
        For result.json: `settings` (details of each, and its seconds a picture), and `pictures` with their `id`, `file`
        and `captions` in the order of the settings, each with `text`, or with the `reason` why there is none.
    """
    pictures = sample(chosen)
    work = Pictures(dataset, pictures)
    items = [work[place] for place in range(len(work))]
    device = choose_device()
    columns: list[_Column] = []
    models, tools = None, None
    for setting in compared:
        if tools is None or setting.models != models:
            tools = None  # let go of one captioner before the next
            models, tools = setting.models, setting.load(device, reporter)
        done = len(columns) * len(items)
        reporter.phase("previewing", len(compared) * len(items), done)
        columns.append(_described(setting, tools, items, partial(_advance, reporter, done)))
        reporter.check_stop()
    return {
        "settings": [column.details for column in columns],
        "pictures": [
            {"id": p.id, "file": p.name, "captions": [column.captions[p.id] for column in columns]} for p in pictures
        ],
    }


def _advance(reporter: Reporter, before: int, done: int) -> None:
    reporter.advance(before + done)


@dataclass(frozen=True)
class _Column:
    """What one setting says about each picture, by its number."""

    details: dict[str, object]
    captions: dict[int, dict[str, str]]


def _described(setting: Setting, tools: Tools, items: Sequence[Item], advance: Callable[[int], None]) -> _Column:
    captions: dict[int, dict[str, str]] = {}

    def land(results: Sequence[Result]) -> None:
        for result in results:
            captions[result.picture.id] = {"reason": result.reason} if result.reason else {"text": result.text}
        advance(len(captions))

    module = CaptionModule(lambda _: tools, setting.plan, setting.size, land)
    module.use(tools)
    started = time.monotonic()
    module.describe(items, last=True)
    module.teardown("predict")
    seconds = (time.monotonic() - started) / max(1, len(items))
    return _Column(setting.details | {"seconds_per_picture": round(seconds, 3)}, captions)
