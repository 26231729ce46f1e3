"""Several datasets in a recipe of another trainer: the first is `dataset.name`, the others stand beside it here too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lora_lightning.foreign.rules import Fate, Rule, Setting, dataset


@dataclass(frozen=True)
class Several:
    """Settings, those of further datasets under names of their own, and the rules for these names."""

    settings: list[Setting]
    rules: Mapping[str, Rule]


def several(settings: Sequence[Setting], *, folder: str, repeats: str, is_regularisation: str) -> Several:
    """Tell apart the settings of several datasets, each of which is one table of the file.

    Args:
        settings: of the file.
        folder: the name of the setting that holds the pictures' folder.
        repeats: of the one that says how often they come.
        is_regularisation: of the one that makes it a regularisation set.
    """
    tables: dict[str, dict[str, Any]] = {}
    for setting in settings:
        if setting.name in (folder, repeats, is_regularisation):
            tables.setdefault(_table(setting), {})[setting.name] = setting.value
    whole = {table: values for table, values in tables.items() if folder in values}
    first = next((table for table, values in whole.items() if not values.get(is_regularisation)), None)
    rules: dict[str, Rule] = {}
    for table, values in whole.items():
        if table != first:
            kept = bool(values.get(is_regularisation))
            rules[f"{table} {folder}"] = _regularisation if kept else _further(values.get(repeats, 1))
            rules[f"{table} {repeats}"] = _regularisation_repeats if kept else _counted
            rules[f"{table} {is_regularisation}"] = _counted
    named = {setting.key: f"{_table(setting)} {setting.name}" for setting in settings}
    return Several(
        [replace(each, name=named[each.key]) if named[each.key] in rules else each for each in settings], rules
    )


def _table(setting: Setting) -> str:
    return setting.key.rpartition(".")[0]


def _further(repeats: Any) -> Rule:
    def rule(value: Any, settings: Mapping[str, Any]) -> Fate:
        fate = dataset(value, settings)
        count = f" x {int(repeats)}" if int(repeats) > 1 else ""
        return Fate("taken", {"dataset.further": [f"{fate.fields['dataset.name']}{count}"]}, fate.note)

    return rule


def _regularisation(value: Any, settings: Mapping[str, Any]) -> Fate:
    fate = dataset(value, settings)
    return Fate("taken", {"dataset.regularisation": fate.fields["dataset.name"]}, fate.note)


def _regularisation_repeats(value: Any, _: Mapping[str, Any]) -> Fate:
    return Fate("taken", {"dataset.regularisation_repeats": int(value)})


def _counted(*_: Any) -> Fate:
    return Fate("taken", note="with the folder of its dataset")
