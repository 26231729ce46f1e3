"""The guide speaks of what there is: commands, fields, buttons, pictures, sections."""

import re
import shlex
from pathlib import Path

import pytest

from lora_lightning import recipe
from lora_lightning.__main__ import parser
from lora_lightning.ui import advice, form, kitchen

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guide.md").read_text()
COMMANDS = [line for line in GUIDE.splitlines() if line.startswith("python -m lora_lightning ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command):
    verb, *words = shlex.split(command)[3:]
    arguments = parser(verb).parse_intermixed_args(words)
    if verb not in ("import", "runs"):
        source, *overrides = arguments.words
        assert recipe.load(source, overrides).name == "my-style"


def test_every_field_exists_and_every_value_is_allowed():
    named = set(re.findall(r"`((?:model|dataset|lora|train|sample)\.[a-z_]+)(?:=([^`]+))?`", GUIDE))
    assert len(named) > 20
    for path, value in named:
        assert form.help_of(path), path
        if value:
            found = recipe.inspect({"name": "x"}, [f"{path}={value}"]).problems
            assert not [problem for problem in found if "no such field" in problem.message], (path, value, found)


def test_the_presets_are_those_that_ship():
    rows = re.findall(r"\| `(\w+)` \| [^|]+ \| (\d+) \| (\d+) \| (\S+) \|", GUIDE)
    assert {name for name, *_ in rows} == set(kitchen.PRESETS)
    for name, steps, rank, rate in rows:
        made = recipe.load(name)
        assert (made.train.steps, made.lora.rank, made.train.learning_rate) == (int(steps), int(rank), float(rate))


def test_the_leanings_are_those_of_the_train_page():
    for bundle in advice.BUNDLES.values():
        assert f"| {bundle.title} |" in GUIDE


def test_its_pictures_are_drawn_and_its_sections_exist():
    from tests.e2e.screenshots import GUIDE as DRAWN

    pictures = set(re.findall(r"\(images/(\w+)\.png\)", GUIDE))
    assert pictures == set(DRAWN)
    for picture in pictures:
        assert (ROOT / "docs" / "images" / f"{picture}.png").is_file(), picture
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^## (.+)$", GUIDE, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", GUIDE)) <= anchors
