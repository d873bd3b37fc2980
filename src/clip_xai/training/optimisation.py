"""How weights are optimised, whatever the task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric


@dataclass(frozen=True)
class Optimisation:
    """How a stage is optimised.

    Attributes:
        learning_rate: Peak learning rate of AdamW.
        mapper_factor: The mapper's learning rate is this times ``learning_rate``.
        weight_decay: Of matrices; never of biases, norms, embeddings and latents.
        warmup: Share of all steps with a rising learning rate; then a cosine falls to 0.
        warmup_steps: The rise takes at least so many steps.
        label_smoothing: In the training loss only.
        seed: Seed of dropout; each epoch starts from seed and epoch.
    """

    learning_rate: float = 1e-3
    mapper_factor: float = 1.0
    weight_decay: float = 0.01
    warmup: float = 0.06
    warmup_steps: int = 0
    label_smoothing: float = 0.0
    seed: int = 42


def mean_metric() -> MeanMetric:
    """Return a mean that one NaN makes NaN: by itself torchmetrics leaves NaN out, and a broken model looks whole."""
    return MeanMetric(nan_strategy=float("nan"))


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Tell whether weight decay applies: to matrices that are not latents."""
    return parameter.ndim >= 2 and "latents" not in name


def learning_rate_factor(step: int, warmup: int, total: int) -> float:
    """Return the factor on the learning rate: up to 1 over ``warmup`` steps, then half a cosine to 0 at ``total``."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return 0.5 * (1 + math.cos(math.pi * progress))


def scheduled(groups: Sequence[dict[str, Any]], told: Optimisation, total: int, **settings: Any) -> dict[str, Any]:
    """Return AdamW over groups of parameters with warm-up and cosine per step, as Lightning takes them.

    Args:
        groups: The parameters, each group with its ``weight_decay`` and, where it is another, its ``lr``.
        told: The learning rate and its rise.
        total: Steps of the whole run.
        settings: More of AdamW's.
    """
    # One kernel for all weights, where there is one.
    fused = all(parameter.is_cuda for group in groups for parameter in group["params"])
    optimiser = AdamW(list(groups), lr=told.learning_rate, fused=fused, **settings)
    total = max(1, total)
    warmup = max(1, told.warmup_steps, round(told.warmup * total))
    schedule = LambdaLR(optimiser, lambda step: learning_rate_factor(step, warmup, total))
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
