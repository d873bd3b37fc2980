"""How much a map changes where it should not: under noise that nobody sees, and from run to run."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.xai.explainer import Explainer
from clip_xai.xai.target import Target

RADIUS, SAMPLES = 0.02, 10


def sensitivity_max(
    explainer: Explainer,
    backbone: VisionBackbone,
    pixels: Tensor,
    target: Target,
    *,
    radius: float = RADIUS,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Tensor:
    """Return the largest relative change of a map under small noise (Yeh et al., NeurIPS 2019).

    ``max |H(x + d) - H(x)| / |H(x)|`` over uniform d of at most ``radius`` in normalised values, in the Frobenius norm.
    In a test with known answers it does not tell random maps from right ones, so it is to be shown, and never to rank
    by.

    Args:
        explainer: The method.
        backbone: The tower.
        pixels: ``[B, 3, S, S]``.
        target: What is explained.
        radius: Largest noise.
        samples: Noisy copies.
        seed: Seed of the noise.

    Returns:
        ``[B, T]``; NaN where the map is zero.
    """
    own = explainer.explain(backbone, pixels, target).values.flatten(2).nan_to_num()
    generator = torch.Generator().manual_seed(seed)
    found = torch.zeros(own.shape[:2], device=own.device)
    for _ in range(samples):
        noise = (2 * torch.rand(pixels.shape, generator=generator) - 1) * radius
        moved = explainer.explain(backbone, pixels + noise.to(pixels), target).values.flatten(2).nan_to_num()
        found = torch.maximum(found, (moved - own).norm(dim=2))
    size = own.norm(dim=2)
    return (found / size).masked_fill(size == 0, float("nan"))


def draws_at_random(explainer: Explainer) -> bool:
    """Tell whether a method has a seed: without one, two runs of it agree."""
    return isinstance(getattr(explainer, "seed", None), int)


def reseeded(explainer: Explainer, seed: int) -> Explainer:
    """Return a method that draws anew; one without a seed as it is."""
    return replace(explainer, seed=seed) if draws_at_random(explainer) else explainer  # type: ignore[call-arg]
