"""Class activation maps: the tokens (or channels) of one block, weighted by their gradient."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.recording import Point
from clip_xai.ranges import setting
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.double import in_double
from clip_xai.xai.explainer import TraceExplainer, explainers
from clip_xai.xai.target import Target
from clip_xai.xai.trace import Needs, Trace


def cam_point(backbone: VisionBackbone, layer: int) -> Point:
    """Return where a class activation map reads a block.

    In a transformer it is the input of the block's attention, after its norm: behind the last attention, patch tokens
    no longer reach a class token, so that there the gradient is exactly zero, and so would be the map. In a
    convolutional or windowed tower it is the block's output.
    """
    return layer, "normed" if backbone.image_tower.family == "transformer" else "output"


@dataclass(frozen=True)
class ActivationMap(TraceExplainer):
    """A map ``H_i`` of the activations ``A_i`` in R^W at patch i and of the gradients ``G_i = ds/dA_i``.

    Prefix tokens (the class token) count neither in means nor in the map. Nothing is normalised.

    Attributes:
        layer: Block (or stage), -1 for the last.
    """

    layer: int = -1

    linear_in_target: ClassVar[bool] = False
    needs_of_tower: ClassVar[frozenset[str]] = frozenset({"output_gradients"})
    cost: ClassVar[str] = "1 F, 1 batched B down to the block"

    def needs(self, backbone: VisionBackbone, target: Target) -> Needs:
        """Activations at one point and their gradient."""
        return Needs(gradients=frozenset({cam_point(backbone, self.layer)}))

    def maps(self, trace: Trace) -> Tensor:
        """Return raw maps ``[B, T, h, w]``."""
        layer, name = cam_point(trace.backbone, self.layer)
        activations = trace.block(layer).normed if name == "normed" else trace.block(layer).computed
        tokens, gradients = (_single(part) for part in (activations.detach(), trace.gradient(layer, name)))
        if trace.tower.family == "transformer":
            tokens, gradients = tokens[:, trace.prefix_tokens :], gradients[:, :, trace.prefix_tokens :]
        return self.combined(tokens, gradients).unflatten(-1, trace.tower.grid_of(self.layer))

    @abstractmethod
    def combined(self, tokens: Tensor, gradients: Tensor) -> Tensor:
        """Return maps ``[B, T, N]`` of tokens ``[B, N, W]`` and their gradients ``[B, T, N, W]``."""


@explainers.register("gradcam", title="Grad-CAM", group="activation maps", order=1)
@dataclass(frozen=True)
class GradCam(ActivationMap):
    """Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391).

    With A_i in R^W what a block computed at patch i and s the score::

        w = mean_i ds/dA_i         H_i = ReLU(w . A_i)

    In a transformer A is the output of the block's first norm (``ln_1``): behind the last attention patch tokens no
    longer reach the class token, so that the gradient there is exactly zero. In a convolutional or windowed tower A is
    the block's output.

    Shapes: maps ``[B, T, h, w]``, raw, over the block's own grid. Cost for T targets: one forward pass and one batched
    backward pass from the read to the chosen block; below it no graph is built.

    Deviations from the published code: the class token counts neither in the channel mean nor in the map, and
    nothing is normalised, while pytorch-grad-cam scales every map to [0, 1].

    Attributes:
        layer: Block, -1 for the last.

    Raises:
        UserError: The gradient is exactly zero for some target.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> GradCam().explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    reading: ClassVar[str] = (
        "Activations weighted by their mean gradient: where features that raise the score are active."
    )

    def combined(self, tokens: Tensor, gradients: Tensor) -> Tensor:
        """Weigh channels by their mean gradient."""
        return torch.einsum("btw,bnw->btn", gradients.mean(dim=2), tokens).relu()


@explainers.register("gradcam_plusplus", title="Grad-CAM++", group="activation maps", order=2)
@dataclass(frozen=True)
class GradCamPlusPlus(ActivationMap):
    """Grad-CAM++ (Chattopadhay et al., WACV 2018, arXiv 1710.11063).

    With G_iw = ds/dA_iw at patch i and channel w::

        alpha_iw = G_iw^2 / (2 G_iw^2 + G_iw^3 sum_j A_jw)   where G_iw is not 0, else 0
        w_w      = sum_i alpha_iw ReLU(G_iw)
        H_i      = ReLU(sum_w w_w A_iw)

    This is the form of pytorch-grad-cam, which raises the gradient to powers instead of differentiating exp(s) twice
    and thrice, and adds 1e-6 to the denominator. Because of that constant and of the cubes, the map changes with the
    scale of the score: a cosine, a logit and a log-probability give different maps. The scale is in the settings.

    In a transformer A has both signs, so that the denominator passes through 0 where ``G_iw sum_j A_jw`` comes near
    -2, as gradients of a logit do. What single precision leaves of such a difference is rounding (5e-3 of the map and
    more), so the tower and the target are run once more in float64.

    Shapes and place as in ``GradCam``. Cost for T targets: one forward pass and one batched backward pass from the read
    to the chosen block, both in float64 on a copy of the model, shared with no other method.

    Deviations from the published code: double precision, the class token does not count and nothing is normalised.

    Attributes:
        layer: Block, -1 for the last.
        epsilon: Added to the denominator.

    Raises:
        UserError: The gradient is exactly zero for some target.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> GradCamPlusPlus(layer=0).explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    reading: ClassVar[str] = (
        "Activations weighted by positive gradients: where features that raise the score are active."
    )

    epsilon: float = setting(1e-6, least=0)

    shares_trace: ClassVar[bool] = False
    cost: ClassVar[str] = "1 F, 1 batched B down to the block, in float64"

    def explain(self, backbone: VisionBackbone, pixels: Tensor, target: Target) -> Attribution:
        """Explain the target's scores in double precision; see the base class."""
        self.require(backbone, target)
        exact, asked = in_double(backbone, target)
        trace = Trace(exact, pixels.to(next(exact.parameters())), asked, self.needs(exact, asked))
        found = self._attribution_of(trace, asked)
        return replace(found, values=found.values.to(pixels.device), scores=found.scores.to(pixels.device))

    def combined(self, tokens: Tensor, gradients: Tensor) -> Tensor:
        """Weigh channels by their positive gradients, each with its own alpha."""
        squares = gradients.square()
        sums = tokens.sum(dim=1)[:, None, None]
        alpha = squares / (2 * squares + sums * squares * gradients + self.epsilon)
        alpha = torch.where(gradients != 0, alpha, 0.0)
        weights = (alpha * gradients.relu()).sum(dim=2)
        return torch.einsum("btw,bnw->btn", weights, tokens).relu()


@explainers.register("layercam", title="LayerCAM", group="activation maps", order=3)
@dataclass(frozen=True)
class LayerCam(ActivationMap):
    """LayerCAM (Jiang et al., IEEE TIP 2021): every place weighs its own channels, by positive gradients only.

    ::

        H_i = ReLU( sum_w ReLU(G_iw) A_iw )          G_iw = ds/dA_iw

    Shapes and place as in ``GradCam``. Cost for T targets: one forward pass and one batched backward pass from the read
    to the chosen block.

    Deviations from the published code: the class token does not count and nothing is normalised.

    Attributes:
        layer: Block, -1 for the last.

    Raises:
        UserError: The gradient is exactly zero for some target.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> bool((LayerCam().explain(*example()).values >= 0).all())
        True
    """

    reading: ClassVar[str] = "Activations × positive gradients, place by place."

    def combined(self, tokens: Tensor, gradients: Tensor) -> Tensor:
        """Weigh each place by its positive gradients."""
        return torch.einsum("btnw,bnw->btn", gradients.relu(), tokens).relu()


@explainers.register("hirescam", title="HiResCAM", group="activation maps", order=4)
@dataclass(frozen=True)
class HiResCam(ActivationMap):
    """HiResCAM (Draelos and Carin, 2020, arXiv 2011.08891): gradient times activation, place by place.

    ::

        H_i = ReLU( sum_w G_iw A_iw )          G_iw = ds/dA_iw

    Before the ReLU the map adds up to the score for a score that is linear in A; averaging the gradients first, as
    Grad-CAM does, loses that.

    Shapes and place as in ``GradCam``. Cost for T targets: one forward pass and one batched backward pass from the read
    to the chosen block.

    Deviations from the published code: the class token does not count and nothing is normalised.

    Attributes:
        layer: Block, -1 for the last.

    Raises:
        UserError: The gradient is exactly zero for some target.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> bool((HiResCam().explain(*example()).values >= 0).all())
        True
    """

    reading: ClassVar[str] = (
        "Activations × gradients, place by place: the share of each place in the score, to first order."
    )

    def combined(self, tokens: Tensor, gradients: Tensor) -> Tensor:
        """Multiply place by place."""
        return torch.einsum("btnw,bnw->btn", gradients, tokens).relu()


def _single(tensor: Tensor) -> Tensor:
    """Return a tensor in single precision, in double if it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
