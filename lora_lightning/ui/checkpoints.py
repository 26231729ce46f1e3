"""The checkpoints of a training: which there are, what each looks like, and what can be done with one."""

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from lora_lightning.runs import launch
from lora_lightning.runs.files import read_json
from lora_lightning.runs.folder import RunFolder
from lora_lightning.ui import actions, cards, gallery, samples
from lora_lightning.workspace import Workspace

USE = (
    "A new run finishes at this step: it saves the LoRA, proves the file and draws its sheet. This run stays as it is."
)


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on the disk."""

    path: Path
    step: int


def find(run: RunFolder) -> list[Checkpoint]:
    """Those whose manifest is there, the latest first."""
    found = []
    for path in run.checkpoints.glob("*.ckpt"):
        manifest = read_json(path.with_suffix(".json"))
        if "step" in manifest:
            found.append(Checkpoint(path, int(manifest["step"])))
    return sorted(found, key=lambda each: each.step, reverse=True)


def show(workspace: Workspace, run: RunFolder) -> None:
    """Each with its samples."""
    found = find(run)
    if not found:
        st.info("The first is saved after some steps, and whenever the run is stopped.", title="No checkpoint yet")
        return
    st.markdown(
        ":gray[A run resumes from the newest. Each holds the adapter, the optimizer and the place in the data.]"
    )
    drawn = samples.find(run)
    for each in found:
        with st.container(border=True):
            stat = each.path.stat()
            st.markdown(f"**Step {each.step:,}**  \n:gray[{cards.size(stat.st_size)}, {cards.ago(stat.st_mtime)}]")
            if st.button("Make a LoRA of it", key=f"use.{each.step}", icon=":material/check:", help=USE):
                name = f"{run.name}-{each.step}"
                taken = workspace.run(name).exists()
                name = launch.clone_name(workspace, name) if taken else name
                actions.go_on(workspace, run, each.step, each.step, name)
            pictures = drawn.pictures.get(each.step, {})
            if pictures:
                gallery.show_files(
                    workspace, [pictures[place] for place in sorted(pictures)], f"checkpoint.{each.step}"
                )
                step = str(each.step)
                st.page_link(
                    cards.page("run"),
                    label="Compare with the base",
                    icon=":material/compare:",
                    query_params={"id": run.name, "tab": "Samples", "step": step},
                )
