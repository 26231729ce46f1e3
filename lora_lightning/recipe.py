"""The recipe: one typed section per step, from which YAML, overrides, `check` and the forms all come."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from lora_lightning import shipped
from lora_lightning.caption.config import CaptionConfig
from lora_lightning.datasets.config import DatasetConfig
from lora_lightning.errors import InputError, NameProblem, Problem, RecipeError
from lora_lightning.evaluate.config import EvaluateConfig
from lora_lightning.generate.config import GenerateConfig
from lora_lightning.models.config import LoraConfig, ModelConfig
from lora_lightning.publish.config import PublishConfig
from lora_lightning.settings import Settings
from lora_lightning.train.config import TrainConfig
from lora_lightning.train.prompts import SampleConfig
from lora_lightning.workspace import check_name

SHIPPED = shipped.FOLDER


class Recipe(Settings):
    """Everything that makes one LoRA."""

    name: str = Field(title="LoRA name", description="The run and the output folder are called so.")
    trigger: str = Field("", title="Trigger word", description="The rare word that calls up what is learned.")
    seed: int = Field(0, title="Seed", description="The same recipe and seed train the same LoRA.", ge=0, lt=2**32)
    model: ModelConfig = ModelConfig()
    dataset: DatasetConfig = DatasetConfig()
    caption: CaptionConfig = CaptionConfig()
    lora: LoraConfig = LoraConfig()
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    generate: GenerateConfig = GenerateConfig()
    publish: PublishConfig = PublishConfig()

    @field_validator("name")
    @classmethod
    def _name_is_a_folder(cls, name: str) -> str:
        try:
            return check_name(name, "LoRA name")
        except NameProblem as error:
            raise ValueError(f"{error.message}. {error.hint}") from None

    @field_validator("trigger")
    @classmethod
    def _trigger_is_one_line(cls, trigger: str) -> str:
        if trigger != trigger.strip() or "\n" in trigger or len(trigger) > 100:
            raise ValueError("the trigger is one short word or phrase without surrounding spaces")
        return trigger

    def to_yaml(self) -> str:
        """The recipe as YAML, complete and in the order of the schema."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load(recipe: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe with `section.field=value` overrides.

    Raises:
        InputError: the recipe cannot be found or read.
        RecipeError: it holds mistakes; all of them are listed.
    """
    return parse(read(recipe), overrides, source=str(recipe))


def read(recipe: str | Path) -> Mapping[str, Any]:
    """The plain values of a recipe given as a file or as the name of a shipped one, unchecked.

    Raises:
        InputError: it cannot be found or read.
    """
    name, path = str(recipe), Path(recipe).expanduser()
    if path.is_file():
        return _read_yaml(path)
    if name not in shipped.names():
        near = get_close_matches(name, shipped.names(), n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise InputError(f"there is no recipe {name!r}", f"{hint}Give a YAML file, or one of: {shipped.overview()}.")
    values: dict[str, Any] = {}
    for layer in shipped.layers(name):
        for section, value in _read_yaml(layer).items():
            values[section] = values.get(section, {}) | value if isinstance(value, dict) else value
    return values


def parse(values: Mapping[str, Any], overrides: Iterable[str] = (), source: str = "recipe") -> Recipe:
    """Check plain values as a recipe.

    Raises:
        RecipeError: they hold mistakes; all of them are listed.
    """
    found = inspect(values, overrides)
    if found.problems:
        raise RecipeError(found.problems, source)
    return found.recipe


@dataclass(frozen=True)
class Inspection:
    """All problems of some values, and the recipe that they make without the fields in question."""

    recipe: Recipe
    problems: list[Problem]


def inspect(values: Mapping[str, Any], overrides: Iterable[str] = ()) -> Inspection:
    """Read values as far as they are right, so that the rest can be checked in the same go."""
    values = _copy(values)
    problems = [problem for override in overrides if (problem := _apply(values, override))]
    try:
        return Inspection(Recipe.model_validate(values), problems)
    except ValidationError as error:
        details = error.errors()
    problems += [_problem(dict(detail)) for detail in details]
    for detail in details:
        _drop(values, [str(part) for part in detail["loc"]])
    return Inspection(Recipe.model_validate({"name": "unnamed"} | values), problems)


def _drop(values: dict[str, Any], location: list[str]) -> None:
    """Remove the field at a location, whichever of its parts the mistake is in."""
    section = values.get(location[0])
    if len(location) > 1 and isinstance(section, dict):
        section.pop(location[1], None)
    else:
        values.pop(location[0], None)


REHEARSAL_STEPS = 200
REHEARSAL_SIDE = 128


def rehearsal(recipe: Recipe) -> Recipe:
    """The recipe on the embedded flux-mini at 128 px: it proves the configuration and the data, not the quality.

    The pictures, captions, trigger, rank and learning rate stay; what the small model or a CPU cannot do changes.
    """
    size = {"width": REHEARSAL_SIDE, "height": REHEARSAL_SIDE}
    steps = min(recipe.train.steps, REHEARSAL_STEPS)
    changes = {
        "name": f"{recipe.name}-rehearsal",
        "model": {"base": "flux-mini", "low_vram": False, "files": {}, "training_adapter": "none"},
        "lora": {"init_from": "", "modules": "", "ranks": []},
        "dataset": {"resolutions": [REHEARSAL_SIDE]},
        "train": {"steps": steps, "stages": [], "quantize": "none", "stream": "auto", "gradient_checkpointing": False}
        | {"checkpoint_every": steps, "sample_every": steps, "validate_every": steps}
        | {"optimizer": recipe.train.optimizer.removeprefix("paged_").removesuffix("8bit")}
        | {"warmup": recipe.train.warmup if recipe.train.warmup < 1 else 0.0},
        "sample": size | {"steps": 16},
        "evaluate": size | {"steps": 16, "encoder": "encoder-mini"},
        "generate": size | {"steps": 16, "reference": ""},
    }
    values = recipe.model_dump(mode="json")
    for section, change in changes.items():
        values[section] = values[section] | change if isinstance(change, dict) else change
    return parse(values, source=f"the rehearsal of {recipe.name}")


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path} cannot be read: {error}", "Give a readable YAML file in UTF-8.") from None
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f" at line {line + 1}" if line is not None else ""
        hint = "Correct the file; `import-recipe FILE` translates those of ai-toolkit and kohya."
        raise InputError(f"recipe {path} is not valid YAML{where}", hint) from None
    if not isinstance(values, Mapping):
        raise InputError(f"recipe {path} holds no fields", "Begin it with 'name: my-lora'.")
    if {"job", "config"} <= values.keys():
        raise InputError(f"{path} is a recipe of ai-toolkit", f"`import-recipe {path}` translates it.")
    return values


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key): dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _apply(values: dict[str, Any], override: str) -> Problem | None:
    """Set one `section.field=value` in place; the value is read as YAML."""
    key, sign, text = override.partition("=")
    if not sign:
        return Problem(override, "is no override", "write section.field=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    *sections, field = key.strip().split(".")
    for section in sections:
        inner = values.get(section, {})
        if not isinstance(inner, Mapping):
            return None
        values[section] = dict(inner)
        values = values[section]
    values[field] = value
    return None


def _problem(detail: dict[str, Any]) -> Problem:
    location = [str(part) for part in detail["loc"]]
    where = ".".join(location)
    if detail["type"] == "extra_forbidden":
        near = get_close_matches(location[-1], _fields_at(location[:-1]), n=1)
        return Problem(where, "there is no such field", f"did you mean {near[0]!r}?" if near else "remove it")
    if detail["type"] == "missing":
        return Problem(where, "is missing", "add it to the recipe")
    message = str(detail["msg"]).removeprefix("Value error, ")
    value = detail.get("input")
    shown = "" if isinstance(value, dict | list) or repr(value) in message else f" (it is {value!r})"
    if message[1:2].islower():
        message = message[0].lower() + message[1:]
    return Problem(where, message + shown)


def _fields_at(location: list[str]) -> list[str]:
    """The names valid at a place in the schema."""
    model: type[BaseModel] = Recipe
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
