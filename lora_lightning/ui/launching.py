"""From a recipe to a run: what stands in the way, each with its fix; the start, the rehearsal, the command."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from lora_lightning.checks.report import Report
from lora_lightning.recipe import Inspection, rehearsal
from lora_lightning.runs import launch
from lora_lightning.ui import cards, drafts, fixes, form
from lora_lightning.workspace import Workspace

NEEDED = ("dataset.name", "disk", "--home")
"""What a rehearsal cannot do without either."""


def panel(workspace: Workspace, found: Inspection, report: Report, values: Mapping[str, Any], device: str) -> None:
    """Blockers, warnings, and the two ways to start; `device` is the only one to run on."""
    wrong = [each.where for each in found.problems]
    blockers = [*found.problems, *(each for each in report.blockers if each.where not in wrong)]
    for place, problem in enumerate(blockers):
        cards.finding(problem)
        invalid = fixes.back_to_default(problem) if problem in found.problems else None
        _offer(workspace, invalid or fixes.find(problem, found.recipe, workspace), values, f"fix.{place}")
    if not blockers:
        told = f"{found.recipe.train.plan.steps:,} steps on {found.recipe.dataset.name}"
        st.success(told, title="Ready to start", icon=":material/check_circle:")
    begin = st.button(
        "Start training",
        type="primary",
        icon=":material/bolt:",
        disabled=bool(blockers),
        width="stretch",
        shortcut="Ctrl+Enter",
    )
    if begin:
        _start(workspace, found.recipe.name, found.recipe.to_yaml(), device)
    _rehearse(workspace, found, device, possible=not any(each.where in NEEDED for each in blockers))
    for place, problem in enumerate(report.warnings):
        cards.finding(problem, blocks=False)
        _offer(workspace, fixes.find(problem, found.recipe, workspace), values, f"fix.warning.{place}")


def _offer(workspace: Workspace, fix: fixes.Fix | None, values: Mapping[str, Any], key: str) -> None:
    change = fixes.button(fix, key) if fix else None
    if change:
        drafts.save(workspace, "train", form.merge(values, change))
        form.forget("train")
        st.rerun()


def command(workspace: Workspace, device: str) -> None:
    """The very command that Start runs."""
    st.markdown("The same from the command line:")
    words = ["python", *launch.command(workspace, "train", str(drafts.path(workspace, "train")))[1:]]
    alone = f"CUDA_VISIBLE_DEVICES={device.removeprefix('cuda-')} " if device else ""
    told = shlex.join(words).replace(f" {Path.home()}/", " ~/")  # a word in quotes stays whole
    st.code(alone + told, language="bash", wrap_lines=True)


def _start(workspace: Workspace, name: str, recipe_yaml: str, device: str) -> None:
    with cards.reported():
        run = launch.start(workspace, "train", name, recipe_yaml, device)
        st.switch_page(cards.page("run"), query_params={"id": run.name})


def _rehearse(workspace: Workspace, found: Inspection, device: str, *, possible: bool) -> None:
    """The recipe on the embedded small model: possible whatever base it names, with or without a GPU."""
    if st.button(
        "Rehearse first",
        icon=":material/theater_comedy:",
        disabled=bool(found.problems) or not possible,
        width="stretch",
        help="This recipe on the embedded flux-mini at 128 px, in minutes on any machine: it proves the settings and "
        "the pictures, not the quality.",
    ):
        with cards.reported():
            small = rehearsal(found.recipe)
            taken = workspace.run(small.name).exists()
            name = launch.clone_name(workspace, small.name) if taken else small.name
            _start(workspace, name, small.model_copy(update={"name": name}).to_yaml(), device)
