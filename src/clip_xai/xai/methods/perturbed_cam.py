"""Class activation maps whose channel weights come from masking the image with the channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.clip import with_texts
from clip_xai.models.backbones.recording import Point, VisualTrace
from clip_xai.ranges import setting
from clip_xai.xai.explainer import BankExplainer, explainers
from clip_xai.xai.masks import ActivationMasks
from clip_xai.xai.methods.activation import ActivationMap, cam_point
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import Target
from clip_xai.xai.trace import Needs, Trace

WEIGHTINGS = ("softmax", "relu_delta", "linear")


@explainers.register("scorecam", title="Score-CAM", group="activation maps", order=5)
@dataclass(frozen=True)
class ScoreCam(BankExplainer):
    """Score-CAM (Wang et al., CVPR Workshops 2020, arXiv 1910.01279) on the tokens that enter one block's attention.

    With A_k channel k of the patch tokens after the norm in front of attention (of a convolutional tower: of a stage's
    output), enlarged to the image and scaled to [0, 1] as M_k, and x_b the image of the fill alone::

        y_k = s(x * M_k)
        softmax       w = softmax over k of  temperature * y_k
        relu_delta    w_k = ReLU( y_k - s(x_b) )
        linear        w_k = y_k - s(x_b)
        H = ReLU( sum over k of w_k A_k )

    The softmax is the paper's, which subtracts s(x_b) first: that changes no softmax. Cosines of masked copies of one
    image lie so close together that their softmax is nearly uniform, and the map the same for every text; so a cosine
    is multiplied by the model's own tau first, as CLIP does before every softmax. ``temperature`` set to 1 gives the
    plain form.

    Shapes: maps ``[B, T, h, w]``, raw. Cost: one forward pass for each of C channels, for the image and for the fill,
    shared by all T targets; no backward pass. The result does not depend on ``chunk_size``.

    Deviations from pytorch-grad-cam: masks are enlarged with the same alignment as the final map (``align_corners``
    False; there the two differ), a constant channel masks everything, and the map is not scaled to [0, 1].

    Attributes:
        layer: Block, -1 for the last.
        weighting: ``"softmax"``, ``"relu_delta"`` or ``"linear"``.
        temperature: Factor in the softmax; 0 for the model's tau where the score is a cosine, and else 1.
        fill: Normalised value where a mask is 0; 0 is the mean colour of the tower's training data.
        chunk_size: Masked images in one forward pass; halved when memory runs out.

    Raises:
        UserError: The weighting is unknown.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> ScoreCam().explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    reading: ClassVar[str] = "Activations weighted by the score of the photograph seen through each of them."

    layer: int = -1
    weighting: str = setting("softmax", one_of=WEIGHTINGS)
    temperature: float = setting(0.0, least=0)
    fill: float = 0.0
    chunk_size: int = setting(64, least=1)

    linear_in_target: ClassVar[bool] = False
    needs_of_tower: ClassVar[frozenset[str]] = frozenset({"output_gradients"})
    cost: ClassVar[str] = "C + 2 F"

    def maps(self, bank: PerturbationBank, target: Target, trace: Trace | None) -> tuple[Tensor, Tensor]:
        """Return raw maps ``[B, T, h, w]`` and the scores of the images."""
        channels = channels_of(bank.backbone, bank.pixels, self.layer)
        masks = ActivationMasks(channels, ("activations", *cam_point(bank.backbone, self.layer)))
        masked = bank.scores(masks, target, fill=self.fill, chunk_size=self.chunk_size)
        if self.weighting == "softmax":
            weights = (self._scale(bank.backbone, target) * masked).softmax(dim=1)
        else:
            nothing = torch.zeros(1, 1, 1)
            weights = masked - bank.scores(nothing, target, fill=self.fill)
            weights = weights.relu() if self.weighting == "relu_delta" else weights
        return torch.einsum("bct,bchw->bthw", weights, channels).relu(), bank.whole_scores(target)

    def _scale(self, backbone: VisionBackbone, target: Target) -> float:
        if self.temperature:
            return self.temperature
        return float(with_texts(backbone).logit_scale.detach()) if target.settings.get("kind") == "cosine" else 1.0


@explainers.register("abscam_init", title="Abs-CAM, initial", group="activation maps", order=7)
@dataclass(frozen=True)
class AbsCamInit(ActivationMap):
    """The initial map of Abs-CAM (Zeng et al., Visual Computer 2023, arXiv 2207.03648).

    With A_ik channel k at patch i of the tokens that enter one block's attention and s the score::

        w_k = mean over patches i of | ds/dA_ik |         H_i = sum over k of  w_k A_ik

    Shapes: maps ``[B, T, h, w]``, signed: the released code applies no ReLU here. Cost for T targets: one forward pass
    and one batched backward pass from the read to the chosen block.

    Deviations from the published code: nothing is scaled to [0, 1].

    Attributes:
        layer: Block, -1 for the last.

    Raises:
        UserError: The gradient is exactly zero for some target.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> AbsCamInit().explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    def combined(self, tokens: Tensor, gradients: Tensor) -> Tensor:
        """Weigh channels by the mean size of their gradient."""
        return torch.einsum("btw,bnw->btn", gradients.abs().mean(dim=2), tokens)


@explainers.register("abscam_final", title="Abs-CAM, final", group="activation maps", order=8)
@dataclass(frozen=True)
class AbsCamFinal(BankExplainer):
    """The final map of Abs-CAM (Zeng et al., Visual Computer 2023, arXiv 2207.03648).

    With w_k and A_k as in ``abscam_init`` and minmax scaling each channel of each image to [0, 1]::

        M_k = minmax( enlarged w_k A_k )         y_k = | s(x * M_k) |         H = ReLU( sum over k of  y_k M_k )

    Because w_k is not negative, M_k is minmax(A_k) wherever w_k > 0: the masked images are the same for all targets,
    and those of Score-CAM at the same layer, whose forward passes are shared. Where w_k is 0 for some target, its mask
    keeps nothing and adds nothing.

    Shapes: maps ``[B, T, h, w]``, raw: the mean over the pixels of each patch. Cost: one forward pass, one batched
    backward pass to the chosen block, and one forward pass for each of C channels, shared by all T targets (the
    published code runs T times C of them, all in one batch). The result does not depend on ``chunk_size``.

    Deviations from the published code: none in the map; as released, it too lacks a closing min-max. Refused for
    log-probabilities: they are negative, so that the sizes y_k would weigh most what explains least.

    Attributes:
        layer: Block, -1 for the last.
        fill: Normalised value where a mask is 0; 0 is the mean colour of the tower's training data.
        chunk_size: Masked images in one forward pass; halved when memory runs out.

    Raises:
        UserError: The gradient is exactly zero for some target.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> AbsCamFinal().explain(*example()).values.shape
        torch.Size([2, 2, 4, 4])
    """

    layer: int = -1
    fill: float = 0.0
    chunk_size: int = setting(64, least=1)

    linear_in_target: ClassVar[bool] = False
    needs_of_tower: ClassVar[frozenset[str]] = frozenset({"output_gradients"})
    cost: ClassVar[str] = "C + 1 F, 1 batched B down to the block"

    def refusal(self, backbone: VisionBackbone, target: Target) -> str | None:
        """Return why the method is not defined; see the base class."""
        if target.score_name == "log-probability":
            return "weighs masks by the size of the score, which for a log-probability is largest for the worst"
        return super().refusal(backbone, target)

    def needs(self, backbone: VisionBackbone, target: Target) -> Needs:
        """Activations at one point and their gradient."""
        return Needs(gradients=frozenset({cam_point(backbone, self.layer)}))

    def maps(self, bank: PerturbationBank, target: Target, trace: Trace | None) -> tuple[Tensor, Tensor]:
        """Return raw maps ``[B, T, h, w]`` and the scores of the images."""
        assert trace is not None
        layer, name = cam_point(bank.backbone, self.layer)
        prefix = trace.prefix_tokens if trace.tower.family == "transformer" else 0
        weights = trace.gradient(layer, name)[:, :, prefix:].float().abs().mean(dim=2)
        channels = _channels(trace.tower, (layer, name))
        masks = ActivationMasks(channels, ("activations", layer, name))
        scores = bank.scores(masks, target, fill=self.fill, chunk_size=self.chunk_size).abs()
        scores = scores * (weights > 0).transpose(1, 2)
        values = []
        for image in range(len(channels)):
            cells = masks.cells(image, bank.pixels.shape[-1], bank.backbone.grid)
            values.append(torch.einsum("ct,chw->thw", scores[image], cells).relu())
        return torch.stack(values), bank.whole_scores(target)


def channels_of(backbone: VisionBackbone, pixels: Tensor, layer: int) -> Tensor:
    """Return the channels that a CAM reads at a layer, ``[B, C, h, w]`` in float32, from one pass of the tower."""
    return _channels(backbone.trace(pixels, record=(layer,)), cam_point(backbone, layer))


def _channels(tower: VisualTrace, point: Point) -> Tensor:
    layer, name = point
    tokens = (tower.block(layer).normed if name == "normed" else tower.block(layer).computed).detach().float()
    tokens = tokens[:, tower.prefix_tokens :] if tower.family == "transformer" else tokens
    return tokens.transpose(1, 2).unflatten(2, tower.grid_of(layer))
