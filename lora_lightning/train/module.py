"""The training step of every model family.

Shapes: B batch, C latent channels, H W latent rows and columns, N samples of a step.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import torch
from diffusers import ModelMixin
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lora_lightning.errors import InputError
from lora_lightning.models import flow, lora
from lora_lightning.models.base import Family, TextEmbedding
from lora_lightning.train import optim
from lora_lightning.train.average import Average
from lora_lightning.train.bands import BANDS
from lora_lightning.train.objective import PLAIN, Objective, by_sample
from lora_lightning.train.preserve import departure


class Batch(NamedTuple):
    """One forward pass, its randomness included, so that a step depends on nothing else.

    `items` are the places of its samples among the run's items; `seed` is of what the forward pass draws (dropout).
    `mask_B1HW` says what is learned, `weight_B` how much each sample counts; `neutral` is the text of the preservation.
    `reference_BCHW` are the clean latents of what each picture is an edit of.
    """

    x0_BCHW: Tensor
    noise_BCHW: Tensor
    sigma_B: Tensor
    text: TextEmbedding
    items: tuple[int, ...] = ()
    seed: int = 0
    mask_B1HW: Tensor | None = None
    weight_B: Tensor | None = None
    neutral: TextEmbedding | None = None
    reference_BCHW: Tensor | None = None


class Losses(NamedTuple):
    """What a forward pass is judged by: `mean` is minimised; `each_B` says it of every sample, without a gradient."""

    mean: Tensor
    each_B: Tensor


class LoraTraining(LightningModule):
    """Flow matching on an adapted transformer: L = mean |v(x_sigma, sigma, text) - (epsilon - x_0)|^2.

    A step whose gradient is not finite is skipped: neither the weights nor the optimizer's state change.

    Args:
        family: knows how to ask the transformer for a velocity.
        transformer: frozen, with a trainable adapter.
        optimizer: by name.
        learning_rate: constant, or of a step counted from 0.
        max_gradient_norm: over all trained weights; 0 for no clipping.
        betas: of the optimizer; empty for its own.
        weight_decay: of the optimizer.
        ema_decay: of the moving average of the adapter; 0 for none.
        objective: what is made small.
        preservation: weight of the departure from the base on a batch's neutral text.
    """

    def __init__(
        self,
        family: Family,
        transformer: ModelMixin,
        *,
        optimizer: str,
        learning_rate: float | Callable[[int], float],
        max_gradient_norm: float,
        betas: tuple[float, ...] = (),
        weight_decay: float = 1e-4,
        ema_decay: float = 0.0,
        objective: Objective = PLAIN,
        preservation: float = 0.0,
    ) -> None:
        super().__init__()
        self.strict_loading = False  # a checkpoint holds only what is trained
        self.family, self.transformer = family, transformer
        self.optimizer, self.betas, self.weight_decay = optimizer, betas, weight_decay
        self.rate = learning_rate if callable(learning_rate) else lambda _step: learning_rate
        self.max_gradient_norm = max_gradient_norm or float("inf")
        self.objective, self.preservation = objective, preservation
        self.trainable = lora.trainable(self)
        self.average = Average(self.trainable, ema_decay) if ema_decay else None
        self.last: Losses
        self.skipped = False
        self._made: list[tuple[Tensor, Tensor]] = []
        self._group: Mapping[str, Any] = {}
        self._gradient_norm: float | Tensor = 0.0
        self.train()

    def cpu(self) -> Self:
        """Lightning puts the module into RAM when a fit ends; what follows still draws, where the module is."""
        return self

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch, in fp32."""
        torch.manual_seed(batch.seed)
        self.last = self.losses(batch)
        self._made.append((batch.sigma_B, self.last.each_B))
        return self.last.mean

    def losses(self, batch: Batch) -> Losses:
        """What the batch costs."""
        x_BCHW = flow.interpolate(batch.x0_BCHW, batch.noise_BCHW, batch.sigma_B)
        seen = (x_BCHW, batch.sigma_B, batch.text, batch.reference_BCHW)
        velocity_BCHW = self.family.velocity(self.transformer, *seen).float()
        target_BCHW = flow.target(batch.x0_BCHW, batch.noise_BCHW)
        square_BCHW = (velocity_BCHW.detach() - target_BCHW).square()
        mean = self.objective(velocity_BCHW, target_BCHW, batch.sigma_B, batch.mask_B1HW, batch.weight_B)
        if batch.neutral is not None:
            neutral = (x_BCHW, batch.sigma_B, batch.neutral, batch.reference_BCHW)
            mean = mean + self.preservation * departure(self.family, self.transformer, *neutral)
        return Losses(mean, by_sample(square_BCHW, batch.mask_B1HW))

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """The weights that are drawn with, validated and saved: the moving average, when there is one."""
        if self.average and self.average.count:
            with self.average.applied():
                yield
        else:
            yield

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer over the adapter."""
        return optim.build(self.optimizer, self.trainable.values(), self.rate(0), self.betas, self.weight_decay)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The learning rate depends on the step alone, so there is no scheduler whose state could be lost."""
        self._group = optimizer.param_groups[0]
        for group in optimizer.param_groups:
            group["lr"] = self.rate(self.trainer.global_step)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        """Clip by the norm over everything; Lightning's own way refuses fused optimizers.

        Optimizers pass over a weight without a gradient: that is how a step is skipped.
        """
        self._gradient_norm = nn.utils.clip_grad_norm_(self.trainable.values(), self.max_gradient_norm)
        self.skipped = not self._gradient_norm.isfinite().item()
        if self.skipped:
            optimizer.zero_grad(set_to_none=True)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Make the step, then let the moving average follow."""
        super().optimizer_step(*arguments, **options)
        if self.average and not self.skipped:
            self.average.update()

    def figures(self) -> Mapping[str, float | Tensor]:
        """What is shown of the step just made, beside its loss."""
        made, self._made = self._made, []
        everyones = self.all_gather(torch.stack([torch.cat(parts) for parts in zip(*made, strict=True)]))
        assert isinstance(everyones, Tensor)  # (processes, 2, N), or (2, N) of one alone
        by_band = _by_band(*everyones.movedim(-2, 0).flatten(1))
        return {
            # Prodigy multiplies by its own estimate of the distance.
            "learning_rate": self._group["lr"] * self._group.get("d", 1.0),
            "gradient_norm": self._gradient_norm,
            **{f"loss/{name}": loss for name, loss in by_band.items()},
        }

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:  # type: ignore[override]
        """Only what is trained."""
        return {name: parameter.detach() for name, parameter in self.trainable.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The moving average goes with the weights."""
        if self.average:
            checkpoint["average"] = self.average.state_dict()

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Take over what a checkpoint learned, without training on."""
        self.on_load_checkpoint(checkpoint)
        self.load_state_dict(checkpoint["state_dict"], strict=False)

    def begin_from(self, checkpoint: dict[str, Any], name: str) -> None:
        """Begin with the weights of another run's checkpoint: its moving average, if it kept one.

        Raises:
            InputError: it is of another adapter.
        """
        weights = checkpoint["average"]["values"] if "average" in checkpoint else checkpoint["state_dict"]
        shapes = {key: weight.shape for key, weight in self.trainable.items()}
        if shapes != {key: weight.shape for key, weight in weights.items()}:
            raise InputError(
                f"lora.init_from={name} holds another adapter than this recipe's",
                "Use the same lora.kind, lora.rank, lora.ranks and lora.targets as the run it is of.",
            )
        self.load_state_dict(weights, strict=False)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Non-strict loading would pass over a weight that is not there."""
        missing = self.trainable.keys() - checkpoint["state_dict"].keys()
        assert not missing, f"the checkpoint lacks {sorted(missing)[:3]}"
        if self.average:
            self.average.load_state_dict(checkpoint["average"])


def _by_band(sigma_N: Tensor, loss_N: Tensor) -> dict[str, Tensor]:
    """The mean loss of each band, NaN where it has no sample; without waiting for the device."""
    found = {}
    for name, (low, high) in BANDS.items():
        inside_N = (sigma_N >= low) & (sigma_N < high)
        found[name] = torch.where(inside_N, loss_N, 0.0).sum() / inside_N.sum()
    return found
