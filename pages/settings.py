"""Settings: where things are, what this machine has, who is told, and what to send when something is wrong."""

import sys

import streamlit as st

from lora_lightning.doctor import examine
from lora_lightning.runs import notify
from lora_lightning.runs.gpu import devices
from lora_lightning.ui import account, actions, cards, diagnostics, storage, tour
from lora_lightning.ui.devices import named
from lora_lightning.workspace import Workspace

workspace = Workspace.find()
cards.head("Settings", "What this dashboard works with. Nothing is sent anywhere unless you say so here.")
tour.show()

left, right = st.columns(2, gap="large")
with left:
    st.subheader("Workspace", anchor=False)
    st.code(cards.place(workspace.home), language=None)
    st.markdown(":gray[Choose another with LORA_LIGHTNING_HOME before starting, or --home on the command line.]")
    storage.show(workspace)

    st.subheader("Hugging Face", anchor=False)
    account.card()

    st.subheader("When a run ends", anchor=False)
    st.html('<button type="button" class="ll-notify">Allow notifications in this browser</button>')
    address = st.text_input(
        "Webhook",
        notify.address(workspace),
        key="webhook",
        placeholder="https://...",
        help="Gets one JSON message (run, state, text) when a run that was started here ends. Empty: none.",
    )
    if address != notify.address(workspace):
        actions.attempt(lambda: notify.set_address(workspace, address.strip()), "Kept")

    st.subheader("Help", anchor=False)
    with st.container(horizontal=True):
        tour.offer("settings.tour")
        st.download_button(
            "Save a report for a bug",
            lambda: diagnostics.bundle(workspace, examine(workspace)),
            "lora-lightning-report.zip",
            "application/zip",
            icon=":material/bug_report:",
            help="Machine, versions, logs and recipes of the last runs; tokens, pictures and captions stay here.",
        )

with right:
    st.subheader("Devices", anchor=False)
    found = named()
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
    versions = [{"Package": "python", "Version": sys.version.split()[0]}, *account.versions()]
    st.dataframe(versions, hide_index=True, height="content")
