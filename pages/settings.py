"""Settings: where things are, what this machine has, and which versions work here."""

import shutil
import sys

import streamlit as st

from lora_lightning.runs.gpu import devices, gpus
from lora_lightning.ui import account, cards
from lora_lightning.workspace import Workspace

PARTS = ("datasets", "runs", "output", "cache", "trash")

workspace = Workspace.find()
cards.head("Settings", "What this dashboard works with. Nothing here is sent anywhere.")

left, right = st.columns(2, gap="large")
with left:
    st.subheader("Workspace", anchor=False)
    st.code(str(workspace.home), language=None)
    st.markdown(":gray[Choose another with LORA_LIGHTNING_HOME before starting, or --home on the command line.]")
    home = next(folder for folder in (workspace.home, *workspace.home.parents) if folder.exists())
    disk = shutil.disk_usage(home)
    st.progress(disk.used / disk.total, text=f"{cards.size(disk.free)} of {cards.size(disk.total)} free")

    st.subheader("Hugging Face", anchor=False)
    account.card()

with right:
    st.subheader("Devices", anchor=False)
    found = {f"cuda-{gpu.index}": f"{gpu.name}, {gpu.memory_mib / 1024:.0f} GB" for gpu in gpus()}
    rows = [
        {
            "Device": device.name,
            "What": found.get(device.name, "this machine's processor"),
            "Used by": device.holder() or "free",
        }
        for device in devices(workspace)
    ]
    st.dataframe(rows, hide_index=True)
    st.subheader("Versions", anchor=False)
    st.dataframe(
        [{"Package": "python", "Version": sys.version.split()[0]}, *account.versions()],
        hide_index=True,
        height="content",
    )
