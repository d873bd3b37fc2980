"""Explainers that read the gradient of the score at the pixels, at one point."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.ranges import setting
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.explainer import Explainer, TraceExplainer, explainers
from clip_xai.xai.pixels import PIXEL_NEEDS, by_cell
from clip_xai.xai.target import Target
from clip_xai.xai.trace import Needs, Trace

RESOLUTIONS = ("patches", "pixels")


@dataclass(frozen=True)
class PixelGradient(TraceExplainer):
    """An explainer made of ``g = ds/dx`` at the pixels x.

    Attributes:
        resolution: ``patches``: over the patch grid; ``pixels``: ``[S, S]``.
    """

    resolution: str = setting("patches", one_of=RESOLUTIONS)

    cost: ClassVar[str] = "1 F, 1 batched B"

    def needs(self, backbone: VisionBackbone, target: Target) -> Needs:
        """The gradient at the input."""
        return PIXEL_NEEDS

    def maps(self, trace: Trace) -> Tensor:
        """Return raw maps ``[B, T, h, w]`` or ``[B, T, S, S]``."""
        values = self.combined(trace.pixels.float(), trace.pixel_gradient.float())
        return values if self.resolution == "pixels" else by_cell(values, trace.grid, mean=not self.linear_in_target)

    @abstractmethod
    def combined(self, pixels: Tensor, gradients: Tensor) -> Tensor:
        """Return ``[B, T, S, S]`` of images ``[B, 3, S, S]`` and gradients ``[B, T, 3, S, S]``."""


@explainers.register("saliency", title="Saliency", group="gradients", order=1)
@dataclass(frozen=True)
class Saliency(PixelGradient):
    """Saliency (Simonyan et al., ICLR workshop 2014, arXiv 1312.6034).

    ::

        H_p = max over colours c of |ds/dx_pc|         over a patch: the mean of its pixels

    Shapes: maps ``[B, T, h, w]``, at least 0, or ``[B, T, S, S]``. Cost for T targets: one forward pass and one batched
    backward pass through the whole tower, shared with the other gradient methods.

    Deviations from the published definition: none per pixel; the mean over patches is ours. captum's ``Saliency`` gives
    ``|ds/dx|`` of each colour, without the maximum.

    Attributes:
        resolution: ``patches`` or ``pixels``.

    Raises:
        UserError: The gradient is exactly zero for some target.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> Saliency("pixels").explain(*example()).values.shape
        torch.Size([2, 2, 24, 24])
    """

    reading: ClassVar[str] = (
        "Size of the gradient at each pixel: where a small change moves the score most, up or down."
    )
    linear_in_target: ClassVar[bool] = False

    def combined(self, pixels: Tensor, gradients: Tensor) -> Tensor:
        """Take the largest colour."""
        return gradients.abs().amax(dim=2)


@explainers.register("input_x_gradient", title="Input × gradient", group="gradients", order=2)
@dataclass(frozen=True)
class InputXGradient(PixelGradient):
    """Input times gradient (Shrikumar et al., 2016, arXiv 1605.01713): the first-order share of each pixel.

    ::

        H_p = sum over colours c of x_pc ds/dx_pc         over a patch: the sum of its pixels

    x is the normalised input, so the reference is the mean colour of the tower's training data. The values are signed
    and in units of the score.

    Shapes: maps ``[B, T, h, w]`` or ``[B, T, S, S]``. Cost for T targets: one forward pass and one batched backward
    pass through the whole tower, shared with the other gradient methods.

    Deviations from the published definition: none; captum's ``InputXGradient``, summed over colours.

    Attributes:
        resolution: ``patches`` or ``pixels``.

    Raises:
        UserError: The gradient is exactly zero for some target.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> InputXGradient().explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    reading: ClassVar[str] = "Gradient × pixel: the share of each pixel in the score, to first order."
    linear_in_target: ClassVar[bool] = True

    def combined(self, pixels: Tensor, gradients: Tensor) -> Tensor:
        """Sum over colours."""
        return (pixels.unsqueeze(1) * gradients).sum(dim=2)


@explainers.register("guided_backprop", title="Guided backpropagation", group="gradients", order=6)
@dataclass(frozen=True)
class GuidedBackprop(Explainer):
    """Guided backpropagation (Springenberg et al., ICLR workshop 2015, arXiv 1412.6806), with a rule for GELU.

    On the way back through every activation function f of the image tower, at pre-activation z and with the gradient
    ``d = f'(z) ds/df`` that would pass::

        passed = d  where d > 0 and z > 0, else 0         H_p = max over colours c of |passed at x_pc|

    For ReLU this is the published rule. GELU, QuickGELU and SiLU let a little of negative pre-activations through,
    where the rule blocks it; where it does not block, the true derivative is kept. Attention, norms and residual paths
    have no activation function and pass their plain gradient. captum, zennit and grad-cam guide ``nn.ReLU`` only: on a
    CLIP ViT their result is the plain gradient.

    Shapes: maps ``[B, T, h, w]``, at least 0, or ``[B, T, S, S]``. Cost for T targets: one forward pass and one batched
    backward pass through the whole tower, of its own: the rule changes what comes back. The rule stands in hooks that
    are gone afterwards.

    Deviations from the published code: the rule for smooth activations, and the mean over patches.

    Attributes:
        resolution: ``patches`` or ``pixels``.

    Raises:
        UserError: The tower calls no activation module that the rule could stand in, or the gradient is exactly zero.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> GuidedBackprop().explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    reading: ClassVar[str] = "Gradients carried back along what raises the score alone: sharp edges, whatever the text."

    resolution: str = setting("patches", one_of=RESOLUTIONS)

    linear_in_target: ClassVar[bool] = False
    cost: ClassVar[str] = "1 F, 1 batched B of its own"

    def explain(self, backbone: VisionBackbone, pixels: Tensor, target: Target) -> Attribution:
        """Explain the target's scores with a guided pass of its own; see the base class."""
        self.require(backbone, target)
        with _guided(backbone.image_tower.module) as called:
            trace = Trace(backbone, pixels, target, PIXEL_NEEDS)
        if not called:
            raise UserError(
                f"guided_backprop found no activation function (ReLU, GELU ...) in the tower of {backbone.name} "
                "to replace, so it would be the plain gradient: choose saliency"
            )
        values = trace.pixel_gradient.float().abs().amax(dim=2)
        if self.resolution == "patches":
            values = by_cell(values, trace.grid, mean=True)
        return self._attribution(values, trace.scores, target)


ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.ELU, nn.Hardswish, nn.Mish)
ACTIVATION_NAMES = ("relu", "gelu", "silu", "swish", "mish")


class _Gate(torch.autograd.Function):
    """The identity, whose gradient passes only where it and the value are positive."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        context.save_for_backward(value)
        return value.clone()  # not a view: some activations work in place

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (value,) = context.saved_tensors
        return gradient * (gradient > 0) * (value > 0)


@contextmanager
def _guided(tower: nn.Module) -> Iterator[list[nn.Module]]:
    """Guide every activation module of a tower; yields the list of those that were called."""
    called: list[nn.Module] = []

    def gate(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        called.append(module)
        return (_Gate.apply(inputs[0]), *inputs[1:])

    handles = [part.register_forward_pre_hook(gate) for part in tower.modules() if _is_activation(part)]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


def _is_activation(module: nn.Module) -> bool:
    """Tell activation functions, of torch or of a library (QuickGELU, GELUTanh, NewGELUActivation ...)."""
    if next(module.children(), None) is not None or next(module.parameters(recurse=False), None) is not None:
        return False
    name = type(module).__name__.lower()
    return isinstance(module, ACTIVATIONS) or any(part in name for part in ACTIVATION_NAMES)
