"""Sanity checks of one method: what is left of its maps when parameters are random, and when another text is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.xai.explainer import Explainer
from clip_xai.xai.map_likeness import entropy_rise, rank_correlation, structural_similarity
from clip_xai.xai.randomisation import bottom_up, randomised
from clip_xai.xai.target import Target

NOISE, NOISY = 0.1, 8  # of smoothed checks: standard deviation in shares of the image's range, and copies


@dataclass(frozen=True)
class Randomisation:
    """What is left of T maps of one image as a model loses its knowledge.

    Attributes:
        stages: What was drawn anew, from the input up; the last step has all parameters.
        correlations: Spearman's with the own map at each step, ``[steps, T]``.
        similarities: SSIM, likewise.
        entropy_rise: eMPRT, ``[T]``.
    """

    stages: tuple[str, ...]
    correlations: Tensor
    similarities: Tensor
    entropy_rise: Tensor


def heat_maps(
    explainer: Explainer, backbone: VisionBackbone, pixels: Tensor, target: Target, noisy: int = 0, seed: int = 0
) -> Tensor:
    """Return the maps of one image, ``[T, h, w]``; averaged over noisy copies of it, where there are any.

    Args:
        explainer: The method.
        backbone: The tower.
        pixels: ``[1, 3, S, S]``.
        target: What is explained.
        noisy: Copies, with normal noise of a tenth of the image's range.
        seed: Seed of the noise.

    Raises:
        UserError: The method gives no map of the picture.
    """
    if explainer.modality != "image":
        raise UserError(f"{explainer.name} does not give a map of the picture, of which sanity checks are made")
    if not noisy:
        return explainer.explain(backbone, pixels, target).values[0].double().cpu()
    generator = torch.Generator().manual_seed(seed)
    spread = NOISE * (pixels.amax() - pixels.amin())
    total: Tensor | float = 0.0
    for _ in range(noisy):
        noise = torch.randn(pixels.shape, generator=generator).to(pixels)
        total = total + explainer.explain(backbone, pixels + spread * noise, target).values[0].double().cpu()
    return total / noisy  # type: ignore[return-value]


def randomisation(
    explainer: Explainer,
    backbone: VisionBackbone,
    pixels: Tensor,
    target: Target,
    *,
    noisy: int = 0,
    steps: bool = True,
    seed: int = 0,
) -> Randomisation:
    """Compare a method's maps with those of copies whose parameters are drawn anew, from the input up.

    A method whose gradient happens to be exactly zero at random parameters has a map of zeros there.

    Args:
        explainer: The method.
        backbone: The tower; it is copied, never written to.
        pixels: One image, ``[1, 3, S, S]``.
        target: What is explained.
        noisy: Noisy copies that maps are averaged over first (sMPRT); 0 for none.
        steps: Whether to look at every stage, else at all parameters at once.
        seed: Of the parameters and the noise.
    """
    own = heat_maps(explainer, backbone, pixels, target, noisy, seed)
    models = bottom_up(backbone, target, seed) if steps else _all_at_once(backbone, target, seed)
    names, correlations, similarities, last = [], [], [], own
    for name, random, asked in models:
        try:
            last = heat_maps(explainer, random, pixels, asked, noisy, seed)
        except UserError as error:
            if "gradient of exactly zero" not in str(error):
                raise
            last = torch.zeros_like(own)
        names.append(name)
        correlations.append(rank_correlation(own, last))
        similarities.append(structural_similarity(own, last))
    rise = entropy_rise(own, last)
    return Randomisation(tuple(names), torch.stack(correlations), torch.stack(similarities), rise)


def _all_at_once(backbone: VisionBackbone, target: Target, seed: int) -> Iterator[tuple[str, VisionBackbone, Target]]:
    yield "all parameters", *randomised(backbone, target, seed)


def text_likeness(own: Tensor, others: Tensor) -> Tensor:
    """Return how alike a map is to those of other texts, or of captions of other photographs, on average.

    Spearman's correlation; 1 for a method whose map is the same whatever is asked.

    Args:
        own: ``[h, w]``.
        others: ``[K, h, w]``, of the same image.
    """
    return rank_correlation(own.expand_as(others), others).mean()
