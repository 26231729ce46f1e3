"""The README's commands and links are real."""

import re
import shlex
from pathlib import Path

import pytest

from lora_lightning import plugins, recipe, shipped
from lora_lightning.__main__ import parser
from lora_lightning.verbs import VERBS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [line for line in README.splitlines() if line.startswith("python -m lora_lightning ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command):
    verb, *words = shlex.split(command)[3:]
    arguments = parser(verb).parse_intermixed_args(words)
    if verb in ("caption", "train", "generate", "publish", "check"):
        source, *overrides = arguments.words
        assert recipe.load(source, overrides).name == "my-style"
    if verb == "export":
        assert arguments.format in plugins.names("datasets/formats")


def test_every_verb_make_target_and_recipe_is_there():
    for verb in VERBS:
        assert f"`{verb}" in README, verb
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile, target
    for path in shipped.FOLDER.rglob("*.yaml"):
        assert f"`{path.stem}`" in README, path
    for name in plugins.names("datasets/formats"):
        assert f"`{name}`" in README, name


def test_every_link_inside_the_repository_leads_somewhere():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_documents_use_plain_text():
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert "\t" not in document.read_text(), document.name
