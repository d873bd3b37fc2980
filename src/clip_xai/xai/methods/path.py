"""Explainers that read the gradient at many inputs: along a path from a baseline, or around the image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.recording import evaluation_mode, outside_inference
from clip_xai.ranges import setting
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.explainer import Explainer, explainers
from clip_xai.xai.methods.gradient import RESOLUTIONS
from clip_xai.xai.pixels import accumulate, by_cell
from clip_xai.xai.target import Target

BASELINES = ("mean", "black", "white", "blur")


def baseline_images(backbone: VisionBackbone, pixels: Tensor, name: str) -> Tensor:
    """Return what stands for absence, like ``pixels``.

    Args:
        backbone: Its preprocessing says what black is.
        pixels: Normalised images ``[B, 3, S, S]``.
        name: ``mean`` (the mean colour of the tower's training data: zeros), ``black``, ``white``, or ``blur`` (the
            image itself under a Gaussian of a sixteenth of its side).

    Example:
        >>> from clip_xai.xai.examples import example
        >>> backbone, pixels, _ = example()
        >>> bool((baseline_images(backbone, pixels, "mean") == 0).all())
        True
    """
    if name == "mean":
        return torch.zeros_like(pixels)
    if name == "blur":
        sigma = pixels.shape[-1] / 16
        size = min(2 * round(3 * sigma) + 1, 2 * pixels.shape[-1] - 1)
        return gaussian_blur(pixels, [size, size], [sigma, sigma])
    mean, std = (pixels.new_tensor(part)[:, None, None] for part in (backbone.preprocess.mean, backbone.preprocess.std))
    return (((0.0 if name == "black" else 1.0) - mean) / std).expand_as(pixels)


@explainers.register("integrated_gradients", title="Integrated gradients", group="gradients", order=4)
@dataclass(frozen=True)
class IntegratedGradients(Explainer):
    """Integrated gradients (Sundararajan et al., ICML 2017, arXiv 1703.01365).

    With x' the baseline and Gauss-Legendre nodes a_k and weights w_k on [0, 1]::

        H_p = sum over colours c of (x_pc - x'_pc) sum_k w_k ds/dx_pc at x' + a_k (x - x')

    Completeness: as ``steps`` grows, a map adds up to ``s(x) - s(x')``; the result's ``delta`` is by how much each one
    misses it.

    Shapes: maps ``[B, T, h, w]`` (the sum of each patch's pixels) or ``[B, T, S, S]``, signed, in units of the score.
    Cost for T targets: ``steps`` forward passes and as many batched backward passes, in chunks, and two forward passes
    for the scores. The cotangent is taken anew at every step, because it changes along the path.

    Deviations from the published definition: Gauss-Legendre in place of a Riemann sum, as in captum. Equal to captum's
    ``IntegratedGradients``, which takes one text at a time.

    Attributes:
        steps: Nodes of the quadrature.
        baseline: ``mean``, ``black``, ``white`` or ``blur``.
        resolution: ``patches`` or ``pixels``.
        chunk_size: Images in one pass; halved when memory runs out.

    Raises:
        UserError: A setting is unknown, or the gradient is exactly zero for some target.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> backbone, pixels, target = example()
        >>> found = IntegratedGradients(steps=16).explain(backbone, pixels, target)
        >>> bool(found.delta.abs().max() < 1e-3)
        True
    """

    reading: ClassVar[str] = "Gradients summed on the way from an empty picture to the photograph."

    steps: int = setting(32, least=1)
    baseline: str = setting("mean", one_of=BASELINES)
    resolution: str = setting("patches", one_of=RESOLUTIONS)
    chunk_size: int = setting(16, least=1)

    every_word: ClassVar[bool] = False
    linear_in_target: ClassVar[bool] = True
    cost: ClassVar[str] = "`steps` F and batched B"

    def explain(self, backbone: VisionBackbone, pixels: Tensor, target: Target) -> Attribution:
        """Explain the target's scores; see the base class."""
        self.require(backbone, target)
        pixels = outside_inference(pixels).detach()
        start = baseline_images(backbone, pixels, self.baseline)
        nodes, weights = (
            torch.tensor(part, dtype=pixels.dtype, device=pixels.device)
            for part in np.polynomial.legendre.leggauss(self.steps)
        )
        nodes, weights = (nodes + 1) / 2, weights / 2
        gradients = accumulate(
            backbone,
            target,
            pixels,
            self.steps,
            lambda owners, numbers: torch.lerp(start[owners], pixels[owners], nodes[numbers, None, None, None]),
            lambda owners, numbers, found: found * weights[numbers, None, None, None, None].float(),
            self.chunk_size,
        )
        values = (gradients * (pixels - start).unsqueeze(1).float()).sum(dim=2)
        scores, zero = _scores(backbone, pixels, target), _scores(backbone, start, target)
        found = self._attribution(_at(values, self.resolution, backbone.grid), scores, target)
        return replace(found, delta=values.sum(dim=(2, 3)) - (scores - zero))


@explainers.register("gradient_shap", title="GradientSHAP", group="gradients", order=5)
@dataclass(frozen=True)
class GradientShap(Explainer):
    """GradientSHAP (Erion et al., Nature Machine Intelligence 2021, arXiv 1906.10670; Lundberg's shap).

    With a baseline x' drawn from ``mean``, ``black``, ``white`` and ``blur`` (or the one named), noise n of standard
    deviation ``noise`` times the image's range, and a uniform in [0, 1]::

        H_p = mean over samples of sum over colours c of (x_pc - x'_pc) ds/dx_pc at x' + a (x + n - x')

    The mean over samples adds up to ``s(x) - mean s(x')`` only in expectation, and without noise.

    Shapes: maps ``[B, T, h, w]`` (the sum of each patch's pixels) or ``[B, T, S, S]``, signed, in units of the score.
    Cost for T targets: ``samples`` forward passes and as many batched backward passes, in chunks. The same seed draws
    the same samples for every image and target, whatever the chunk size.

    Deviations from captum: all texts share the samples; a sample's noise is drawn once and serves every image.

    Attributes:
        samples: Points for each image.
        noise: Standard deviation of the noise, in shares of max(x) - min(x); 0 for none.
        baseline: ``all``, ``mean``, ``black``, ``white`` or ``blur``.
        seed: Of the samples.
        resolution: ``patches`` or ``pixels``.
        chunk_size: Images in one pass; halved when memory runs out.

    Raises:
        UserError: A setting is unknown, or the gradient is exactly zero for some target.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> GradientShap(samples=4).explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    reading: ClassVar[str] = "Gradients on the way from random starting pictures to the photograph, averaged."

    samples: int = setting(32, least=1)
    noise: float = setting(0.0, least=0)
    baseline: str = setting("all", one_of=("all", *BASELINES))
    seed: int = setting(0, least=0)
    resolution: str = setting("patches", one_of=RESOLUTIONS)
    chunk_size: int = setting(16, least=1)

    every_word: ClassVar[bool] = False
    linear_in_target: ClassVar[bool] = True
    cost: ClassVar[str] = "`samples` F and batched B"

    def explain(self, backbone: VisionBackbone, pixels: Tensor, target: Target) -> Attribution:
        """Explain the target's scores; see the base class."""
        self.require(backbone, target)
        pixels = outside_inference(pixels).detach()
        names = BASELINES if self.baseline == "all" else (self.baseline,)
        starts = torch.stack([baseline_images(backbone, pixels, name) for name in names], dim=1)
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randint(len(names), (self.samples,), generator=generator).to(pixels.device)
        places = torch.rand(self.samples, generator=generator).to(pixels)
        seeds = torch.randint(2**31, (self.samples,), generator=generator)
        spread = self.noise * _range(pixels)

        def start_of(owners: Tensor, numbers: Tensor) -> Tensor:
            return starts[owners, chosen[numbers]]

        def point(owners: Tensor, numbers: Tensor) -> Tensor:
            noisy = pixels[owners]
            if self.noise:
                noisy = noisy + spread[owners] * _noise(seeds, numbers, pixels)
            return torch.lerp(start_of(owners, numbers), noisy, places[numbers, None, None, None])

        def share(owners: Tensor, numbers: Tensor, gradients: Tensor) -> Tensor:
            steps = (pixels[owners] - start_of(owners, numbers)).unsqueeze(1).float()
            return (gradients * steps).sum(dim=2) / self.samples

        values = accumulate(backbone, target, pixels, self.samples, point, share, self.chunk_size)
        scores = _scores(backbone, pixels, target)
        return self._attribution(_at(values, self.resolution, backbone.grid), scores, target)


@explainers.register("smoothgrad", title="SmoothGrad", group="gradients", order=3)
@dataclass(frozen=True)
class SmoothGrad(Explainer):
    """SmoothGrad (Smilkov et al., 2017, arXiv 1706.03825) and its squared form (Hooker et al., NeurIPS 2019).

    With n drawn from N(0, sigma^2), sigma being ``noise`` times max(x) - min(x) of the image::

        g    = mean over samples of ds/dx at x + n
        H_p  = max over colours c of |g_pc|                                  over a patch: the mean of its pixels
        H2_p = max over colours c of mean over samples of (ds/dx_pc)^2       with ``squared``

    Shapes: maps ``[B, T, h, w]``, at least 0, or ``[B, T, S, S]``. Cost for T targets: ``samples`` forward passes and
    as many batched backward passes, in chunks. The same seed draws the same noise for every image and target, whatever
    the chunk size.

    Deviations from the published definition: none; captum's ``NoiseTunnel`` around ``Saliency`` without absolute
    values, with the noise scaled by the image's range and the colours joined.

    Attributes:
        samples: Noisy copies of each image.
        noise: sigma in shares of max(x) - min(x); 0.1 to 0.2 in the paper.
        squared: Average the squares.
        seed: Of the noise.
        resolution: ``patches`` or ``pixels``.
        chunk_size: Images in one pass; halved when memory runs out.

    Raises:
        UserError: A setting is unknown, or the gradient is exactly zero for some target.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> SmoothGrad(samples=4, squared=True).explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    reading: ClassVar[str] = "The gradient, averaged over copies of the photograph with noise."

    samples: int = setting(32, least=1)
    noise: float = setting(0.15, least=0)
    squared: bool = False
    seed: int = setting(0, least=0)
    resolution: str = setting("patches", one_of=RESOLUTIONS)
    chunk_size: int = setting(16, least=1)

    every_word: ClassVar[bool] = False
    linear_in_target: ClassVar[bool] = False
    cost: ClassVar[str] = "`samples` F and batched B"

    def explain(self, backbone: VisionBackbone, pixels: Tensor, target: Target) -> Attribution:
        """Explain the target's scores; see the base class."""
        self.require(backbone, target)
        pixels = outside_inference(pixels).detach()
        generator = torch.Generator().manual_seed(self.seed)
        seeds = torch.randint(2**31, (self.samples,), generator=generator)
        spread = self.noise * _range(pixels)
        power = 2 if self.squared else 1
        gradients = accumulate(
            backbone,
            target,
            pixels,
            self.samples,
            lambda owners, numbers: pixels[owners] + spread[owners] * _noise(seeds, numbers, pixels),
            lambda owners, numbers, found: found**power / self.samples,
            self.chunk_size,
        )
        values = gradients.abs().amax(dim=2)
        scores = _scores(backbone, pixels, target)
        return self._attribution(_at(values, self.resolution, backbone.grid, mean=True), scores, target)


def _scores(backbone: VisionBackbone, pixels: Tensor, target: Target) -> Tensor:
    with torch.no_grad(), evaluation_mode(backbone):
        return target.score(backbone.features(pixels).read(target.reads)).float()


def _range(pixels: Tensor) -> Tensor:
    """Largest minus smallest value of each image, ``[B, 1, 1, 1]``."""
    flat = pixels.flatten(1)
    return (flat.amax(dim=1) - flat.amin(dim=1))[:, None, None, None]


def _noise(seeds: Tensor, numbers: Tensor, pixels: Tensor) -> Tensor:
    """Standard normal noise of each sample, ``[rows, 3, S, S]``: the same whatever the chunk."""
    drawn = [
        torch.randn(pixels.shape[1:], generator=torch.Generator().manual_seed(int(seeds[number])))
        for number in numbers.tolist()
    ]
    return torch.stack(drawn).to(pixels)


def _at(values: Tensor, resolution: str, grid: tuple[int, int], mean: bool = False) -> Tensor:
    return values if resolution == "pixels" else by_cell(values, grid, mean)
