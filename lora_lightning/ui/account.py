"""What is installed here, and who is logged in to the Hugging Face Hub; both without the network."""

from importlib.metadata import PackageNotFoundError, version

import streamlit as st
from huggingface_hub import get_token

from lora_lightning import __version__

PACKAGES = (
    "torch", "lightning", "diffusers", "transformers", "peft", "bitsandbytes", "huggingface_hub",
    "safetensors", "streamlit", "tensorboard",
)  # fmt: skip


def card() -> None:
    """Whether a token is stored, and how to log in; the token itself is never shown."""
    if get_token():
        st.success("A token is stored on this machine.", title="Logged in", icon=":material/key:")
        return
    st.info(
        "Run `hf auth login` in a terminal of this machine. It is needed to publish, and for FLUX.1 models whose "
        "licence you have accepted.",
        title="Not logged in to the Hugging Face Hub",
        icon=":material/key_off:",
    )


def versions() -> list[dict[str, str]]:
    """The packages that matter, without importing any."""
    ours = {"Package": "lora-lightning", "Version": __version__}
    return [ours, *({"Package": name, "Version": _version(name)} for name in PACKAGES)]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
