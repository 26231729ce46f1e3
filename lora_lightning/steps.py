"""The long steps by their verb: which job does the work, and what frames it.

Each job imports torch and its friends, so it is imported only when its step is taken.
"""

from collections.abc import Callable
from importlib import import_module

from lora_lightning.recipe import Recipe
from lora_lightning.runs.folder import RunFolder
from lora_lightning.runs.job import perform
from lora_lightning.runs.reporter import Outcome, Reporter
from lora_lightning.workspace import Workspace

Job = Callable[[Recipe, Workspace, Reporter], Outcome]

STEPS = ("caption", "train", "evaluate", "generate", "publish")
ON_DEVICE = ("caption", "train", "evaluate", "generate")


def take(verb: str, recipe: Recipe, workspace: Workspace, run: RunFolder) -> Outcome:
    """Take one step of the workflow in this process, as the run says.

    Raises:
        LoraLightningError: whatever ended it, recorded in the run.
    """
    return perform(
        workspace, run, lambda reporter: _work(verb, recipe, workspace, reporter), needs_device=verb in ON_DEVICE
    )


def _work(verb: str, recipe: Recipe, workspace: Workspace, reporter: Reporter) -> Outcome:
    if verb in ON_DEVICE:
        import_module("lora_lightning.models.quiet").hush()
    job: Job = import_module(f"lora_lightning.{verb}.job").run
    outcome = job(recipe, workspace, reporter)
    if verb == "train":
        import_module("lora_lightning.publish.card").write_card(recipe, workspace, reporter.run, outcome)
    return outcome
