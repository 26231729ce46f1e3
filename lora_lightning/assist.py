"""A process that was started to help another: it finds the run that the main process holds, and does its part."""

from argparse import Namespace

from lora_lightning import recipe, steps
from lora_lightning.errors import InputError
from lora_lightning.runs import ranks
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.job import run_name
from lora_lightning.workspace import Workspace


def assist(verb: str, arguments: Namespace, workspace: Workspace) -> int:
    """Help with the command that the main process was given; returns the exit code.

    Raises:
        InputError: it is not one that processes share.
    """
    if run := ranks.shared_run():
        loaded = recipe.load(run.recipe_path)
    elif verb == "train":
        source, *overrides = arguments.words
        loaded = recipe.load(source, overrides)
        loaded = recipe.rehearsal(loaded) if arguments.rehearse else loaded
        run = RunFolder(workspace.run(run_name(verb, loaded.name)))
    elif verb == "runs" and arguments.words[:1] == ["resume"] and len(arguments.words) == 2:
        run = RunFolder.open(workspace, arguments.words[1])
        loaded = recipe.load(run.recipe_path)
    else:
        raise InputError(f"{verb} is not shared among processes", "Start it once, without torchrun or srun.")
    return ranks.assist(run, lambda reporter: steps.job("train")(loaded, workspace, reporter))
