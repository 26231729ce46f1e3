"""The header of a LoRA file: what WebUIs and model hosts read (kohya's `ss_*`, Stability's `modelspec.*`)."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from lora_lightning import __version__

BFL = {"flux1": "https://github.com/black-forest-labs/flux", "flux2": "https://github.com/black-forest-labs/flux2"}
DEV_LICENCE = "FLUX.1 [dev] Non-Commercial License"
LICENCES = {
    "black-forest-labs/FLUX.1-dev": DEV_LICENCE,
    "black-forest-labs/FLUX.1-Krea-dev": DEV_LICENCE,
    "black-forest-labs/FLUX.1-Kontext-dev": DEV_LICENCE,
    "black-forest-labs/FLUX.1-schnell": "apache-2.0",
    "black-forest-labs/FLUX.2-dev": "FLUX Non-Commercial License",
    "black-forest-labs/FLUX.2-klein-base-9B": "FLUX Non-Commercial License",
    "black-forest-labs/FLUX.2-klein-base-4B": "apache-2.0",
}


@dataclass(frozen=True)
class TrainingFacts:
    """How a LoRA was made; times are seconds since 1970."""

    name: str
    trigger: str
    base: str
    architecture: str
    rank: int
    alpha: float
    targets: str
    steps: int
    learning_rate: float
    optimizer: str
    batch_size: int
    accumulate: int
    seed: int
    resolutions: tuple[int, ...]
    dataset: str
    captions: tuple[str, ...]
    session: str
    started: float
    finished: float
    thumbnail: str = ""


def header(facts: TrainingFacts) -> dict[str, str]:
    """The header's fields; all values are strings, nested ones JSON, empty ones left out.

    `ss_network_alpha` is what was trained with: the file's weights already carry alpha / rank.
    """
    largest = max(facts.resolutions)
    version = "flux2" if facts.architecture.startswith("flux-2") else "flux1"
    values = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{facts.architecture}/lora",
        "modelspec.implementation": BFL[version],
        "modelspec.title": facts.name,
        "modelspec.author": "",
        "modelspec.date": datetime.fromtimestamp(facts.finished, UTC).isoformat(timespec="seconds"),
        "modelspec.license": LICENCES.get(facts.base, ""),
        "modelspec.resolution": f"{largest}x{largest}",
        "modelspec.trigger_phrase": facts.trigger,
        "modelspec.prediction_type": "flow_matching",
        "modelspec.thumbnail": facts.thumbnail,
        "ss_output_name": facts.name,
        "ss_base_model_version": version,
        "ss_sd_model_name": facts.base,
        "ss_network_module": "networks.lora_flux",
        "ss_network_dim": str(facts.rank),
        "ss_network_alpha": f"{facts.alpha:g}",
        "ss_network_args": json.dumps({"targets": facts.targets, "alpha_folded": True}),
        "ss_resolution": f"({largest}, {largest})",
        "ss_num_train_images": str(len(facts.captions)),
        "ss_tag_frequency": json.dumps({facts.dataset: tag_frequency(facts.captions)}, ensure_ascii=False),
        "ss_steps": str(facts.steps),
        "ss_num_epochs": str(-(-facts.steps * facts.batch_size * facts.accumulate // max(1, len(facts.captions)))),
        "ss_learning_rate": f"{facts.learning_rate:g}",
        "ss_optimizer": facts.optimizer,
        "ss_total_batch_size": str(facts.batch_size * facts.accumulate),
        "ss_seed": str(facts.seed),
        "ss_session_id": facts.session,
        "ss_training_started_at": str(facts.started),
        "ss_training_finished_at": str(facts.finished),
        "software": f"LoRA Lightning {__version__}",
    }
    return {key: value for key, value in values.items() if value}


def tag_frequency(captions: tuple[str, ...], most: int = 100) -> dict[str, int]:
    """How often each comma-separated part occurs in the captions, the most frequent first."""
    counts: dict[str, int] = {}
    for caption in captions:
        for tag in caption.split(","):
            if tag := tag.strip():
                counts[tag] = counts.get(tag, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1])[:most])
