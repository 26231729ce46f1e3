"""How kohya's sd-scripts draw sigma and weigh the loss by it.

Source: kohya-ss/sd-scripts, library/flux_train_utils.py, get_noisy_model_input_and_timesteps.
"""

from collections.abc import Mapping
from typing import Any

from lora_lightning.foreign.rules import Fate


def timesteps(value: Any, settings: Mapping[str, Any]) -> Fate:
    """Sampler and shift; sigmoid_scale is the deviation, discrete_flow_shift the factor."""
    shift, scale = float(settings["discrete_flow_shift"]), float(settings["sigmoid_scale"])
    sigmoid = {"train.timesteps": "sigmoid", "train.logit_std": scale}
    known: dict[str, dict[str, Any]] = {
        "uniform": {"train.timesteps": "uniform", "train.shift": "none"},
        "sigmoid": sigmoid | {"train.shift": "none"},
        "shift": sigmoid | {"train.shift": shift},
        "flux_shift": sigmoid | {"train.shift": "resolution"},
        "sigma": _weighted(settings) | {"train.shift": shift},
    }
    return Fate("taken", known[value]) if value in known else Fate("left", note="no such sampler here")


def _weighted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What weighting_scheme makes of timestep_sampling=sigma."""
    if settings["weighting_scheme"] == "logit_normal":
        mean, std = float(settings.get("logit_mean", 0)), float(settings.get("logit_std", 1))
        # There u is 1 for the picture's end of the schedule, here sigma is 1 for noise.
        return {"train.timesteps": "logit_normal", "train.logit_mean": -mean, "train.logit_std": std}
    if settings["weighting_scheme"] == "mode":
        return {"train.timesteps": "mode", "train.mode_scale": float(settings.get("mode_scale", 1.29))}
    return {"train.timesteps": "uniform"}


def weighting(value: Any, settings: Mapping[str, Any]) -> Fate:
    """The weights of the loss by sigma; as a sampler it counts only with timestep_sampling=sigma."""
    if value in ("sigma_sqrt", "cosmap"):
        return Fate("taken", {"train.loss_weighting": value})
    if value in ("logit_normal", "mode") and settings["timestep_sampling"] != "sigma":
        return Fate("left", note="it counts only with timestep_sampling=sigma, there as well")
    return Fate("same")
