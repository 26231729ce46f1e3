"""Home: the machine, what works now, and the one next step."""

import shutil

import streamlit as st

from lora_lightning.demo.sample import demo_recipe, sample
from lora_lightning.runs import launch
from lora_lightning.runs.folder import runs
from lora_lightning.runs.gpu import gpus
from lora_lightning.ui import cards, gallery, monitor, tour
from lora_lightning.workspace import Workspace

RECENT = 6


def figure(label: str, value: str, below: str) -> None:
    """One figure of the machine."""
    st.metric(label, value, below, delta_color="off", delta_arrow="off", border=True)


def offer_sample(workspace: Workspace) -> None:
    """A first try on what ships with the package: the whole workflow in about two minutes, offline."""
    about = "20 drawings and small models ship with LoRA Lightning. About two minutes, no GPU, no download."
    if st.button("Try it with the sample set", key="try_sample", icon=":material/play_circle:", help=about):
        with cards.reported():
            recipe = demo_recipe(sample(), workspace)
            run = launch.start(workspace, "demo", recipe.name, recipe.to_yaml())
            st.switch_page(cards.page("run"), query_params={"id": run.name})


workspace = Workspace.find()
cards.head("LoRA Lightning", "From a folder of pictures to a published FLUX LoRA.")
tour.show()

datasets, loras, working = workspace.dataset_names(), workspace.lora_names(), monitor.active(workspace)
ran = bool(runs(workspace))

if not datasets:
    cards.empty(
        "Begin with your pictures",
        "Ten to forty of one subject or one style. Captions, training and publishing follow from here, step by step.",
        to="datasets",
        label="Import pictures",
        icon=":material/add_photo_alternate:",
    )
elif not ran:
    cards.empty(
        "Your pictures are here",
        "Describe them with a captioner or by hand, then train on them.",
        to="captions",
        label=f"Caption {datasets[0]}",
        icon=":material/edit_note:",
        query={"dataset": datasets[0]},
    )
if not ran:
    with st.container(horizontal=True, horizontal_alignment="center"):
        offer_sample(workspace)
        tour.offer("home.tour")

if working:
    st.header("Working now", anchor=False)
    for run in working[:3]:
        monitor.card(workspace, run, key=f"home.{run.name}")
elif datasets and ran:
    with st.container(horizontal=True, vertical_alignment="center"):
        cards.next_step("Train a LoRA", to="train", icon=":material/bolt:")
        if loras:
            st.page_link(cards.page("generate"), label="Generate with a LoRA", icon=":material/image:")

if loras:
    st.header("Finished LoRAs", anchor=False)
    latest = sorted(loras, key=lambda name: workspace.lora(name).stat().st_mtime, reverse=True)[:RECENT]
    with st.grid("auto", min_column_width=240):
        for name in latest:
            with st.container(border=True, height="stretch"):
                samples = gallery.drawn(workspace.output / name / "samples")
                if samples:
                    gallery.picture(gallery.of_file(workspace, samples[0]))
                stat = workspace.lora(name).stat()
                st.markdown(f"**{name}**  \n:gray[{cards.size(stat.st_size)}, {cards.ago(stat.st_mtime)}]")
                st.page_link(cards.page("generate"), label="Generate", query_params={"lora": name})

st.header("This machine", anchor=False)
with st.grid("auto", min_column_width=220):
    for gpu in gpus():
        used = f"{gpu.used_mib / 1024:.0f} of {gpu.memory_mib / 1024:.0f} GB used, {gpu.temperature_celsius} °C"
        figure(gpu.name, f"{gpu.utilisation_percent} % busy", used)
    if not gpus():
        figure("Device", "CPU", "no NVIDIA GPU is visible")
    home = next(folder for folder in (workspace.home, *workspace.home.parents) if folder.exists())
    figure("Disk", f"{cards.size(shutil.disk_usage(home).free)} free", cards.place(workspace.home))
