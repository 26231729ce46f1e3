"""The devices of this machine in words, and the choice of one for a run."""

import streamlit as st

from lora_lightning.recipe import Recipe
from lora_lightning.runs import queue
from lora_lightning.runs.folder import Status
from lora_lightning.runs.gpu import devices, gpus
from lora_lightning.ui import actions
from lora_lightning.workspace import Workspace

ANY = "whichever is free first"


def named() -> dict[str, str]:
    """Each GPU's name and memory by the name of its device."""
    return {f"cuda-{gpu.index}": f"{gpu.name}, {gpu.memory_mib / 1024:.0f} GB" for gpu in gpus()}


def choose(workspace: Workspace, recipe: Recipe) -> str:
    """The GPU that a training shall run on; '' for any, for several together, and where there is no choice."""
    there = devices(workspace)
    if len(there) < 2 or recipe.train.devices != 1:
        return ""
    known, used = named(), {device.name: device.holder() for device in there}

    def told(name: str) -> str:
        busy = f", used by {used[name]}" if used.get(name) else ""
        return f"{name}: {known.get(name, '')}{busy}" if name else ANY.capitalize()

    options = ["", *used]
    return st.selectbox("GPU", options, format_func=told, key="train.device", persist_state="session")


def change(workspace: Workspace, status: Status, key: str) -> None:
    """The GPU that a waiting run waits for, where there are several."""
    there = [device.name for device in devices(workspace)]
    if len(there) < 2:
        return
    options = ["", *there]

    def keep() -> None:
        chosen = str(st.session_state[f"{key}.device"])
        actions.attempt(lambda: queue.choose_device(workspace, status.name, chosen), "")

    st.selectbox(
        "Waits for",
        options,
        options.index(status.wanted) if status.wanted in options else 0,
        format_func=lambda name: name or ANY,
        key=f"{key}.device",
        on_change=keep,
        label_visibility="collapsed",
        width=220,
    )
