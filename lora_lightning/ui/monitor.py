"""A run as it is now, drawn again every second while it works. What is drawn comes from the run's folder alone."""

from collections.abc import Callable

import streamlit as st

from lora_lightning.runs.folder import RunFolder, Status, runs
from lora_lightning.runs.gpu import gpus
from lora_lightning.ui import actions, cards, charts, devices, gallery
from lora_lightning.workspace import Workspace

LIVE_SECONDS = 1.0
LATEST_SAMPLES = 8
LEAST_SECONDS = 1.0
"""Phases that took less are not worth a word."""

WHY = {
    "loss": "How far off the prediction is, as a mean of the last steps. It falls little and jumps with the noise "
    "level: judge by the samples.",
    "learning_rate": "How strongly a step changes the LoRA.",
    "gradient_norm": "How strongly the pictures pull. Steady is good; a steep rise comes before the loss breaks.",
    "steps_per_second": "Without the time for samples and checkpoints.",
}
"""What a figure of a training means."""

WRONG = ("failed", "interrupted")

VERBS = {
    "train": "Training",
    "caption": "Captioning",
    "generate": "Generating",
    "publish": "Publishing",
    "demo": "Demo",
    "evaluate": "Evaluating",
}
"""What a run of a verb is doing, in a word."""


def watch(run: RunFolder, draw: Callable[[Status], None]) -> None:
    """Draw a run's status, again and again while it works; when it ends or begins, window.py draws the page anew."""
    if run.status().live:
        with st.container(key=f"live-{run.name}"):  # style.css keeps what is in it from fading while it is drawn
            st.fragment(lambda: draw(run.status()), run_every=LIVE_SECONDS)()
    else:
        draw(run.status())


def active(workspace: Workspace) -> list[RunFolder]:
    """The runs that work now, then those that wait, in the order of the line."""
    live = [(run, status) for run in runs(workspace) if (status := run.status()).live]
    ordered = sorted(live, key=lambda pair: (pair[1].state == "queued", pair[1].queue_order))
    return [run for run, _ in ordered]


def overview(workspace: Workspace, run: RunFolder) -> None:
    """Everything about one run on one screen: progress, actions, figures, device, loss, latest samples."""

    def draw(status: Status) -> None:
        with st.container(horizontal=True, vertical_alignment="center"):
            cards.state(status.state)
            st.markdown(f":gray[{VERBS.get(status.verb, status.verb)}, updated {cards.ago(status.updated)}]")
        _progress(status, why=status.state not in WRONG)
        _ending(workspace, run, status)
        actions.buttons(workspace, run, status, key="run")
        if status.state == "queued" and status.queue_order:
            devices.change(workspace, status, "run")
        figures(status)
        if status.live:
            device(status)
        phases(status)
        charts.losses(run)
        samples = gallery.drawn(run.samples)[:LATEST_SAMPLES]
        if samples:
            st.subheader("Latest samples", anchor=False)
            gallery.show_files(workspace, samples, "run.latest")

    watch(run, draw)


def card(workspace: Workspace, run: RunFolder, *, key: str) -> None:
    """One run in a bordered card with a link to its page, kept up to date."""
    with st.container(border=True):

        def draw(status: Status) -> None:
            heading(status)
            _progress(status, why=True)
            actions.buttons(workspace, run, status, key=key)
            if status.state == "queued" and status.queue_order:
                devices.change(workspace, status, key)

        watch(run, draw)


def heading(status: Status) -> None:
    """A run's name as a link to its page, what it does, and its state."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.page_link(cards.page("run"), label=f"**{status.name}**", query_params={"id": status.name})
        cards.state(status.state)
        st.markdown(f":gray[:small[{VERBS.get(status.verb, status.verb)}, made {cards.ago(status.created)}]]")


def _progress(status: Status, *, why: bool) -> None:
    """A bar while the run works; afterwards a line on how far it came and why it ended."""
    if status.live:
        st.progress(status.progress, text=progress_text(status))
    parts = [status.message] if status.message and why else []
    if not status.live and status.state != "completed" and status.phase:
        parts.append(f"reached: {progress_text(status).lower()}")
    if parts:
        st.markdown(f":gray[{cards.escape(cards.capital(', '.join(parts)))}]")


def _ending(workspace: Workspace, run: RunFolder, status: Status) -> None:
    """A card for what went wrong, with what to do about it, as a button where a button can do it."""
    if status.state not in WRONG:
        return
    show = st.error if status.state == "failed" else st.warning
    show(cards.escape(status.hint), title=cards.capital(cards.escape(status.message)))
    actions.remedy(workspace, run, status)


def device(status: Status) -> None:
    """The GPU that the run works on, as the driver reports it now."""
    for gpu in gpus():
        if f"cuda-{gpu.index}" in status.device.split(", "):
            st.markdown(f":gray[{gpu.name}]")
            with st.grid("auto", min_column_width=140):
                st.metric("GPU busy", f"{gpu.utilisation_percent} %", border=True)
                used = f"{gpu.used_mib / 1024:.1f} / {gpu.memory_mib / 1024:.0f} GB"
                st.metric("GPU memory", used, border=True)
                st.metric("Temperature", f"{gpu.temperature_celsius} °C", border=True)
                st.metric("Power", f"{gpu.power_watts:.0f} W", border=True)


def phases(status: Status) -> None:
    """Where the time went."""
    spent = {phase: seconds for phase, seconds in (status.seconds or {}).items() if seconds >= LEAST_SECONDS}
    if spent:
        told = " · ".join(f"{cards.capital(phase)} {cards.duration(seconds)}" for phase, seconds in spent.items())
        st.markdown(f":small[:gray[{cards.escape(told)}]]")


def progress_text(status: Status) -> str:
    """Phase, units and time left: 'Training 340 of 2,000, about 50 min left'."""
    if not status.phase:
        return "Waiting for its turn" if status.state == "queued" else "Starting"
    text = cards.capital(status.phase)
    if status.total:
        text += f" {status.done:,} of {status.total:,}"
    if status.eta_seconds is not None and status.done < status.total:
        text += f", about {cards.duration(status.eta_seconds)} left"
    return text


def figures(status: Status) -> None:
    """What the work measures, such as the loss and steps a second."""
    shown = {name: value for name, value in (status.figures or {}).items() if isinstance(value, int | float)}
    if shown:
        with st.grid("auto", min_column_width=140):
            for name, value in shown.items():
                label = name.removesuffix("_mib").replace("_", " ").capitalize()
                unit = " MiB" if name.endswith("_mib") else ""
                st.metric(label, cards.figure(value) + unit, border=True, height="stretch", help=WHY.get(name))
