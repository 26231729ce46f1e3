"""The training step of every model family."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import ModelMixin
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lora_lightning.models import flow, lora
from lora_lightning.models.base import Family, TextEmbedding
from lora_lightning.train import optim


class Batch(NamedTuple):
    """One forward pass, its randomness included, so that a step depends on nothing else."""

    x0_BCHW: Tensor
    noise_BCHW: Tensor
    sigma_B: Tensor
    text: TextEmbedding


class LoraTraining(LightningModule):
    """Flow matching on an adapted transformer: L = mean |v(x_sigma, sigma, text) - (epsilon - x_0)|^2.

    Args:
        family: knows how to ask the transformer for a velocity.
        transformer: frozen, with a trainable adapter.
        optimizer: by name.
        learning_rate: constant.
        max_gradient_norm: over all trained weights; 0 for no clipping.
    """

    def __init__(
        self,
        family: Family,
        transformer: ModelMixin,
        *,
        optimizer: str,
        learning_rate: float,
        max_gradient_norm: float,
    ) -> None:
        super().__init__()
        self.strict_loading = False  # a checkpoint holds only what is trained
        self.family, self.transformer = family, transformer
        self.optimizer, self.learning_rate = optimizer, learning_rate
        self.max_gradient_norm = max_gradient_norm or float("inf")
        self.trainable = lora.trainable(self)
        self._gradient_norm: float | Tensor = 0.0
        self.train()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch, in fp32."""
        x_BCHW = flow.interpolate(batch.x0_BCHW, batch.noise_BCHW, batch.sigma_B)
        velocity_BCHW = self.family.velocity(self.transformer, x_BCHW, batch.sigma_B, batch.text)
        return F.mse_loss(velocity_BCHW.float(), flow.target(batch.x0_BCHW, batch.noise_BCHW))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer over the adapter."""
        return optim.build(self.optimizer, self.trainable.values(), self.learning_rate)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        """Clip by the norm over everything; Lightning's own way refuses fused optimizers."""
        self._gradient_norm = nn.utils.clip_grad_norm_(self.trainable.values(), self.max_gradient_norm)

    def figures(self) -> Mapping[str, float | Tensor]:
        """What is shown of a step beside its loss."""
        return {"learning_rate": self.learning_rate, "gradient_norm": self._gradient_norm}

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:  # type: ignore[override]
        """Only what is trained."""
        return {name: parameter.detach() for name, parameter in self.trainable.items()}

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Take over what a checkpoint learned, without training on."""
        self.on_load_checkpoint(checkpoint)
        self.load_state_dict(checkpoint["state_dict"], strict=False)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Non-strict loading would pass over a weight that is not there."""
        missing = self.trainable.keys() - checkpoint["state_dict"].keys()
        assert not missing, f"the checkpoint lacks {sorted(missing)[:3]}"
