"""Every shipped recipe, in all its variants."""

from itertools import product

import pytest
import yaml

from lora_lightning import recipe, shipped
from lora_lightning.checks.model import stored_as
from lora_lightning.errors import InputError

NUMBERS = {"character": (1200, 24, 3e-4), "style": (1000, 16, 4e-4), "product": (800, 12, 5e-4)}
MEMORY = ("80gb", "24gb", "16gb", "12gb", "8gb")


def test_every_kind_comes_gentle_or_not_and_for_every_card():
    wanted = {
        kind + gentle + card
        for kind, gentle, card in product(NUMBERS, ("", "-gentle"), ("", *("-" + m for m in MEMORY)))
    }
    assert set(shipped.names()) == {*wanted, "rehearsal"}
    assert shipped.overview() == (
        "character, product, style (each also with [-gentle][-80gb|-24gb|-16gb|-12gb|-8gb]), rehearsal"
    )


@pytest.mark.parametrize("name", shipped.names())
def test_every_shipped_recipe_loads_and_survives_its_own_yaml(name):
    made = recipe.load(name)
    assert recipe.parse(yaml.safe_load(made.to_yaml())) == made
    assert (made.name, made.trigger) == (f"my-{name.partition('-')[0]}", made.trigger.upper())
    assert all(made.trigger in prompt for prompt in made.sample.prompts) or name == "rehearsal"


def test_the_kinds_hold_the_numbers_that_people_know():
    numbers = {kind: _numbers(recipe.load(kind)) for kind in NUMBERS}
    assert numbers == NUMBERS


@pytest.mark.parametrize("kind", NUMBERS)
def test_gentle_is_a_third_of_the_learning_rate_at_most_with_more_steps(kind):
    plain, gentle = recipe.load(kind), recipe.load(f"{kind}-gentle")
    assert gentle.train.learning_rate == 1e-4 <= plain.train.learning_rate / 3 + 1e-12
    assert gentle.train.steps > plain.train.steps
    told = {"train": plain.train.model_dump(include={"steps", "learning_rate"})}
    back = gentle.model_dump(mode="json")
    assert recipe.parse({**back, "train": back["train"] | told["train"]}) == plain


@pytest.mark.parametrize(("kind", "card"), list(product(NUMBERS, MEMORY)))
def test_a_memory_preset_changes_what_takes_memory_and_nothing_that_is_wanted(kind, card):
    plain, fitted = recipe.load(kind), recipe.load(f"{kind}-{card}")
    assert fitted.train.plan == plain.train.plan
    assert fitted.sample.prompts == plain.sample.prompts
    assert recipe.load(f"{kind}-gentle-{card}").lora == fitted.lora
    assert fitted.dataset.resolutions == {"8gb": (512,), "12gb": (512, 768)}.get(card, plain.dataset.resolutions)
    assert stored_as(fitted) == {"80gb": "none", "24gb": "int8"}.get(card, "nf4")
    assert fitted.train.gradient_checkpointing == (False if card == "80gb" else "auto")
    assert fitted.lora.rank == (8 if card == "8gb" else plain.lora.rank)


@pytest.mark.parametrize("file", sorted(shipped.FOLDER.rglob("*.yaml")), ids=lambda file: file.stem)
def test_the_head_of_each_file_shows_its_command(file):
    text = file.read_text()
    command = next(line for line in text.splitlines() if "python -m lora_lightning" in line).split()
    name = command[command.index("train") + 1]
    assert file in shipped.layers(name)
    assert recipe.load(name, command[command.index("train") + 2 :]).dataset.name == "my-pictures"
    assert text.isascii()


@pytest.mark.parametrize("name", ["style-12gb-gentle", "rehearsal-12gb", "style-48gb", "gentle", "12gb", "style-"])
def test_what_is_no_name_says_what_the_names_are(name):
    with pytest.raises(InputError) as caught:
        recipe.load(name)
    assert shipped.overview() in caught.value.hint


def _numbers(made):
    return made.train.steps, made.lora.rank, made.train.learning_rate
